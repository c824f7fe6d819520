"""What a policy needs of the meaning of requests: an embedder, and a semantic cache, or neither."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cache.link import Link
from gateway.background_spend import SpentHere, SpentTogether
from gateway.clock import Clock
from gateway.features import Embedding
from gateway.semantic import NearAnswers
from policies.problems import PolicyError, Problem
from policies.schema import Policy

if TYPE_CHECKING:
    from cache.semantic.answers import Host
    from cache.semantic.embedder import Vector

    Embed = Callable[[str], Awaitable[Vector | None]]

_NEEDED = ("faiss", "onnx", "onnxruntime", "safetensors", "tokenizers")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a policy has to do with meaning: vectors, and answers in other words, or neither."""

    embedding: Embedding | None = None
    near: NearAnswers | None = None


def check_extra(policy: Policy) -> None:
    """Raise PolicyError where a route names a semantic cache and its extra is not installed."""
    missing = _missing()
    if policy.storage.semantic_index.get_secret_value() != "faiss" and find_spec("psycopg") is None:
        raise PolicyError([
            Problem(
                "policy", 0, 0, "storage.semantic_index",
                "expected the packages of the extra, found no psycopg",
                "pip install 'frugal-gateway[postgres]'",
            )
        ])  # fmt: skip
    problems = [
        Problem(
            "policy", 0, 0, f"routes.{name}.cache.semantic",
            f"expected the packages of the extra, found no {', '.join(missing)}",
            "pip install 'frugal-gateway[semantic]'",
        )
        for name, route in policy.routes.items()
        if missing and any(route.semantic_caches)
    ]  # fmt: skip
    if problems:
        raise PolicyError(problems)


def _missing() -> list[str]:
    return [name for name in _NEEDED if find_spec(name) is None]


class Meanings:
    """Embedders and semantic caches across policies: what a reload names again is kept open."""

    def __init__(
        self,
        clock: Clock,
        host: Host | None = None,
        *,
        remote: Path | None = None,
        link: Link | None = None,
    ) -> None:
        self._clock = clock
        self._host = host
        self._remote = remote
        # One for all policies: what was spent before a reload is spent.
        self._spent = SpentTogether(link, clock.wall) if link else SpentHere(clock.wall)

    @asynccontextmanager
    async def of(
        self, policy: Policy, ledger: Path, *, wants_vectors: bool
    ) -> AsyncIterator[Meaning]:
        """Yield what a policy's routes need of the meaning of requests.

        Answers are kept in `storage.semantic`, else beside the ledger. Raises
        EmbedderError, or OSError for a file that cannot be had; where routers alone want
        vectors, they go without instead.
        """
        named = [cache for route in policy.routes.values() for cache in route.semantic_caches]
        async with AsyncExitStack() as stack:
            if named:
                path = policy.storage.semantic or ledger.with_name(f"{ledger.stem}-semantic.db")
                yield await self._with_answers(policy, named[0].embedder, path, stack)
            elif wants_vectors:
                yield Meaning(await self._with_vectors(stack))
            else:
                yield Meaning()

    async def _with_answers(
        self, policy: Policy, embedder: str, path: Path, stack: AsyncExitStack
    ) -> Meaning:
        from cache.semantic.answers import Place

        shared = policy.storage.redis.get_secret_value() if policy.storage.redis else None
        index = policy.storage.semantic_index.get_secret_value()
        place = Place(embedder, path, shared, None if index == "faiss" else index)
        cache = await stack.enter_async_context(self._lender().answers(place))
        near = NearAnswers(cache, policy, self._clock, self._spent)
        stack.push_async_callback(near.aclose)
        return Meaning(near.embedding, near)

    async def _with_vectors(self, stack: AsyncExitStack) -> Embedding | None:
        if _missing():
            _log.warning("routers go without vectors: found no %s", ", ".join(_missing()))
            return None
        from cache.semantic.embedder import SHIPPED, EmbedderError

        try:
            service = await stack.enter_async_context(self._lender().embedding(SHIPPED[0]))
        except EmbedderError as exc:
            _log.warning("routers go without vectors: %s", exc)
            return None
        return Embedding(lambda: service.version, _patient(service.whole))

    def _lender(self) -> Host:
        """Return who lends: the process that listens on the socket, else this one."""
        if self._host is None and self._remote is not None:
            from cache.semantic.remote import RemoteHost

            self._host = RemoteHost(self._remote)
        elif self._host is None:
            from cache.semantic.host import LocalHost

            self._host = LocalHost(wall=self._clock.wall)
        return self._host


def _patient(embed: Callable[[str], Awaitable[Vector | None]]) -> Embed:
    """Return an embedding whose trouble costs the vector and nothing else."""

    async def vector(text: str) -> Vector | None:
        try:
            return await embed(text)
        except Exception as exc:
            _log.warning("a question has no vector: %s", exc)
            return None

    return vector
