"""A request as the learned router sees it, whether it was logged or is live."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from router.types import RouterError
from router.validators import NOTHING, Wanted

if TYPE_CHECKING:
    from numpy.typing import NDArray


class QueryError(RouterError):
    """A query that cannot be estimated from, such as one with a vector that is not finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is known of a request before any model has seen it.

    `text` is the last user turn. `vector` is its embedding of unit length, None
    without an embedder. `category` is what the operator knows of the request (a
    route, a task, a dataset), None where nothing is. `input_tokens` is an
    estimate, None where nobody counted. `wanted` is the form asked for. Raises
    QueryError for a vector that is not one row of finite numbers.
    """

    text: str
    messages: Sequence[Mapping[str, Any]] | None = None
    vector: NDArray[Any] | None = None
    category: str | None = None
    input_tokens: int | None = None
    max_tokens: int | None = None
    has_tools: bool = False
    has_images: bool = False
    json_schema: bool = False
    wanted: Wanted = NOTHING

    def __post_init__(self) -> None:
        """Let nothing in that could make an estimate NaN."""
        if self.vector is not None:
            _check_vector(self.vector)
        if self.input_tokens is not None and self.input_tokens < 0:
            raise QueryError(f"input_tokens: expected 0 or more, found {self.input_tokens}")


def _check_vector(vector: NDArray[Any]) -> None:
    import numpy as np

    if vector.ndim != 1 or not vector.size:
        raise QueryError(f"vector: expected one row of numbers, found shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise QueryError("vector: expected finite numbers, found NaN or infinity; embed it again")


def query_of(messages: Sequence[Mapping[str, Any]], **known: Any) -> Query:
    """Return the query of a conversation; `known` are the fields that its text does not tell."""
    last = next((m for m in reversed(messages) if m.get("role") == "user"), None)
    content = None if last is None else last.get("content")
    images = any(_is_image(part) for message in messages for part in _parts(message))
    known.setdefault("has_images", images)
    return Query(text=text_of(content), messages=messages, **known)


def text_of(content: Any) -> str:
    """Return the text of a message's content: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _parts(message: Mapping[str, Any]) -> Iterator[Any]:
    content = message.get("content")
    yield from content if isinstance(content, list) else ()


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and "image" in str(part.get("type", ""))


_WORD = re.compile(r"[^\W\d_]{2,}")


def content_key(text: str) -> str:
    """Return a key that texts share which differ in case and spacing alone."""
    return _digest(" ".join(_folded(text).split()))


def group_key(text: str) -> str:
    """Return a key that near-duplicates share: other numbers, another order of the same words.

    A learner must not be tested on a question whose twin it was taught.
    """
    words = sorted(set(_WORD.findall(_folded(text))))
    return _digest(" ".join(words)) if len(words) > 2 else content_key(text)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
