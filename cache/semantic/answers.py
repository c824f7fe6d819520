"""What the gateway asks of a semantic cache and of an embedder, wherever they stand."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cache.scope import Scope

if TYPE_CHECKING:
    from cache.semantic.decision_budget import ErrorBudget
    from cache.semantic.embedder import Vector
    from cache.semantic.found import SemanticHit, SemanticStats, Terms
    from cache.semantic.scope import Asked
    from cache.types import CachedReply


@dataclass(frozen=True, slots=True)
class Place:
    """Which answers: the embedder's name, the file they are kept in, and who else has them.

    `redis` is the URL, secret included, by which replicas on other machines are kept in step;
    `postgres` that of the database that holds the vectors, None for this machine's memory.
    """

    embedder: str
    path: Path | None
    redis: str | None = field(default=None, repr=False)
    postgres: str | None = field(default=None, repr=False)


class Vectors(Protocol):
    """An embedder at work."""

    @property
    def version(self) -> str:
        """Return what tells these vectors from those of other embedders."""
        ...

    async def whole(self, text: str) -> Vector | None:
        """Return the vector of a text; None for one longer than the model reads.

        Raises whatever keeps it from being had.
        """
        ...


class Answers(Protocol):
    """A semantic cache at work; its methods are those of `cache.semantic.lookup.SemanticCache`."""

    @property
    def version(self) -> str:
        """Return what tells these vectors from those of other embedders."""
        ...

    async def vector(self, text: str) -> Vector | None:
        """Return the vector of a question; None where it cannot be had now."""
        ...

    async def alike(self, one: str, other: str) -> bool | None:
        """Return whether two answers mean the same; None where that cannot be told now."""
        ...

    async def find(
        self, asked: Asked, vector: Vector, terms: Terms, request_id: str = ""
    ) -> SemanticHit | None:
        """Return an answer that serves, or None."""
        ...

    async def keep(
        self, asked: Asked, vector: Vector, reply: CachedReply, *, answer: str, terms: Terms
    ) -> None:
        """Keep an answer."""
        ...

    async def drop(
        self, wanted: Scope, *, question: str | None = None, dry_run: bool = False
    ) -> int:
        """Remove the entries that somebody means. Raises StoreFailed."""
        ...

    async def observe(self, asked: Asked, entry_id: str, terms: Terms, *, was_right: bool) -> None:
        """Take note of an audited hit."""
        ...

    async def teach(self, asked: Asked, entry_id: str, *, was_right: bool) -> None:
        """Take note of whether an answer would have served that was not sure enough to."""
        ...

    async def doubt(self, request_id: str, tenant: str) -> bool:
        """Take note that a tenant's client found an answer wrong; False for one long ago."""
        ...

    async def alias(self, asked: Asked, entry_id: str) -> None:
        """Take note that a judge found an entry's answer to answer the asked question too."""
        ...

    async def budgets(self) -> list[tuple[str, str, ErrorBudget]]:
        """Return tenant, route and error budget of all that were audited. Raises StoreFailed."""
        ...

    async def count(self) -> int:
        """Return how many entries there are. Raises StoreFailed."""
        ...

    async def counted(self) -> SemanticStats:
        """Return what was counted since the start, by all who share the cache."""
        ...


class Host(Protocol):
    """Lends embedders and caches; who names one that is lent already gets the same."""

    def embedding(self, name: str) -> AbstractAsyncContextManager[Vectors]:
        """Lend the embedder of a name. Raises EmbedderError."""
        ...

    def answers(self, place: Place) -> AbstractAsyncContextManager[Answers]:
        """Lend the answers kept in a place. Raises EmbedderError or OSError."""
        ...
