"""What an index of vectors is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

Vectors = NDArray[Any]
"""Float32 rows of unit length."""


class Near(NamedTuple):
    """A vector found: its number, and its cosine with the one asked for."""

    id: int
    similarity: float


class IndexAway(Exception):
    """An index that cannot be asked now; says why."""


class VectorIndex(Protocol):
    """Vectors by number: the extension point `vector index`. Used by one thread at a time."""

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number; a number is added once."""
        ...

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        ...

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        ...
