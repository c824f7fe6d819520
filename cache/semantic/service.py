"""Embeddings off the event loop: one worker thread, a bounded queue, equal texts once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from cache.semantic.embedder import Embedder, Vector

MOST_WAITING = 64


class Busy(Exception):
    """More texts wait than may; the caller does without a vector."""


class EmbeddingService:
    """Embeds for everybody in this process; an async context manager.

    Texts that arrive while the worker is at work are handed over together, at
    most `batch` at once, so a burst costs one change of thread and not one each.
    """

    def __init__(self, load: Callable[[], Embedder], *, batch: int = 16) -> None:
        self._load = load
        self._batch = batch
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._waiting: dict[str, asyncio.Future[Vector]] = {}
        self._under_way: dict[str, asyncio.Future[Vector]] = {}
        self._task: asyncio.Task[None] | None = None
        self._embedder: Embedder | None = None
        self.embedded = 0

    async def __aenter__(self) -> EmbeddingService:
        """Load the model in the worker. Raises EmbedderError."""
        loop = asyncio.get_running_loop()
        try:
            self._embedder = await loop.run_in_executor(self._worker, self._load)
        except BaseException:
            self._worker.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in (*self._waiting.values(), *self._under_way.values()):
            future.cancel()
        self._worker.shutdown(wait=True)

    @property
    def embedder(self) -> Embedder:
        """Return the model, for its version and sizes."""
        if self._embedder is None:
            raise RuntimeError("the service is entered before it is asked")
        return self._embedder

    @property
    def version(self) -> str:
        """Return what tells these vectors from those of other embedders."""
        return self.embedder.version

    async def vector(self, text: str) -> Vector:
        """Return the vector of a text. Raises Busy, or what the embedder raised."""
        future = self._under_way.get(text) or self._waiting.get(text)
        if future is None:
            if len(self._waiting) >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING} texts wait for their vectors")
            future = self._waiting[text] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._work())
        return await asyncio.shield(future)

    async def whole(self, text: str) -> Vector | None:
        """Return the vector of a text; None for one longer than the model reads.

        Raises what `vector` does.
        """
        embedder = self.embedder
        # A text has at most a token for each character, and two that stand around it.
        if len(text) + 2 > embedder.max_tokens < embedder.count(text):
            return None
        return await self.vector(text)

    async def _work(self) -> None:
        """Embed until nobody waits."""
        try:
            while self._waiting:
                texts = list(self._waiting)[: self._batch]
                self._under_way = {text: self._waiting.pop(text) for text in texts}
                await self._embed(texts)
        finally:
            self._task = None

    async def _embed(self, texts: list[str]) -> None:
        loop = asyncio.get_running_loop()
        futures = [self._under_way[text] for text in texts]
        try:
            rows = await loop.run_in_executor(self._worker, self.embedder.embed, texts)
        except Exception as exc:
            for future in futures:
                future.set_exception(exc)
                future.exception()  # those who asked may have left; nobody else need hear of it
        else:
            self.embedded += len(texts)
            for future, row in zip(futures, rows, strict=True):
                future.set_result(row)
        finally:
            self._under_way = {}
