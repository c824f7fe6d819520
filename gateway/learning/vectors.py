"""Vectors for a table of outcomes, by the embedder that the gateway would use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.learning.errors import LearningError

if TYPE_CHECKING:
    from router.learn_table import LearnTable

_BATCH = 64


def with_vectors(
    table: LearnTable, embedder: str | None, advance: Callable[[str, float], None]
) -> tuple[LearnTable, str]:
    """Return the table with a vector a query, and the embedder's version; as it is without one.

    Raises LearningError for an embedder that cannot be loaded.
    """
    if embedder is None:
        return table, ""
    import numpy as np

    from cache.semantic.embedder import EmbedderError, load_embedder

    try:
        loaded = load_embedder(embedder, threads=1)
    except (EmbedderError, ImportError) as exc:
        raise LearningError(
            f"{exc}; install frugal-gateway[semantic], or use --embedder none"
        ) from exc
    texts = [query.text for query in table.queries]
    rows = np.empty((len(texts), loaded.width), np.float32)
    for at in range(0, len(texts), _BATCH):
        rows[at : at + _BATCH] = loaded.embed(texts[at : at + _BATCH])
        advance("embedding prompts", min(1.0, (at + _BATCH) / len(texts)))
    return table.with_vectors(rows), loaded.version
