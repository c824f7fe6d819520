"""What may be known of a request's meaning, computed at most once and only when asked for.

One vector of the last user turn serves the semantic cache and a router that
learns; neither knows the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from router.stakes import NO_STAKES, Stakes
from router.validators import NOTHING, Wanted

if TYPE_CHECKING:
    from cache.semantic.embedder import Vector


@dataclass(frozen=True, slots=True)
class Embedding:
    """Who makes vectors; `embed` gives None for trouble.

    `version` changes whenever the vectors would, and is empty while it is not known.
    """

    version: Callable[[], str]
    embed: Callable[[str], Awaitable[Vector | None]]


class Features:
    """The meaning of one request; without an embedding, its words alone."""

    __slots__ = ("_body", "_embedding", "_task", "is_drawn", "messages", "stakes")

    def __init__(
        self,
        messages: Sequence[Mapping[str, Any]],
        embedding: Embedding | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages = messages
        self._body = body
        self.is_drawn = False
        self.stakes: Stakes = NO_STAKES
        self._embedding = embedding
        self._task: asyncio.Task[Vector | None] | None = None

    @property
    def question(self) -> str:
        """Return the text of the last user turn; empty where there is none."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return text_of(message.get("content"))
        return ""

    @property
    def wanted(self) -> Wanted:
        """Return what the request's body, where it is known, asks of the form of its answer."""
        return NOTHING if self._body is None else Wanted.of_request(self._body)

    @property
    def embedder(self) -> str:
        """Return the version of what makes the vector; empty where nothing does."""
        return self._embedding.version() if self._embedding else ""

    @property
    def known_vector(self) -> Vector | None:
        """Return the vector where it has been computed; None before, or where it cannot be had."""
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def vector(self) -> Vector | None:
        """Return the vector of the last user turn; None where it cannot be had.

        Whoever asks first starts the work, and nobody's leaving stops it.
        """
        if self._embedding is None:
            return None
        if self._task is None:
            self._task = asyncio.ensure_future(self._computed(self._embedding))
        return await asyncio.shield(self._task)

    async def _computed(self, embedding: Embedding) -> Vector | None:
        question = self.question
        return await embedding.embed(question) if question else None


def text_of(content: object) -> str:
    """Return the words of a message's content, its text parts a line each."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
