"""The semantic cache's process, as a worker sees it.

While it is away, hung or starting anew, nothing is found and nothing is kept: a
request loses the chance of a hit, and waits for nobody. One call that is not
answered in time takes the line down for all, until a new one has been opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from cache.backoff import Backoff
from cache.scope import Scope
from cache.semantic.answers import Place
from cache.semantic.calls import CALLS, OPEN, Answer, Call, Opening, framed, packed, read_frame
from cache.semantic.calls import unpacked as read
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.embedder import EmbedderError, Vector
from cache.semantic.found import SemanticHit, SemanticStats, Terms
from cache.semantic.scope import Asked
from cache.semantic.service import Busy
from cache.types import CachedReply, StoreFailed

_MOST_UNDER_WAY = 200
_log = logging.getLogger(__name__)


class Line:
    """A connection that opens one place, kept up by a task of its own."""

    def __init__(
        self, socket: Path, opening: Opening, *, deadline_s: float, opens_within_s: float
    ) -> None:
        self.version = ""
        self.is_up = False
        self._socket = socket
        self._opening = opening
        self._deadline_s = deadline_s
        self._opens_within_s = opens_within_s
        self._backoff = Backoff(first_s=0.05, most_s=2.0)
        self._count = 0
        self._under_way: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._refusal: EmbedderError | None = None

    async def __aenter__(self) -> Line:
        """Wait until the place is open, or for as long as that may take. Raises EmbedderError."""
        self._keeper = asyncio.create_task(self._keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._opens_within_s):
                await self._settled.wait()
        if self._refusal is not None:
            await self.__aexit__(None, None, None)
            raise self._refusal
        if not self.is_up:
            _log.warning("the semantic cache is not up yet; requests go on without it")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._keeper is not None, "a line is entered before it is left"
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)

    async def call(self, name: str, *given: object) -> Any:
        """Ask and return the answer. Raises StoreFailed, Busy or EmbedderError."""
        if not self.is_up:
            raise StoreFailed("the semantic cache's process is away")
        try:
            return await self._asked(name, given, self._deadline_s)
        except TimeoutError:
            self._hang_up()
            raise StoreFailed(
                f"the semantic cache's process did not answer within {self._deadline_s:g} s"
            ) from None

    async def _asked(self, name: str, given: tuple[object, ...], within_s: float) -> Any:
        assert self._writer is not None, "the line is up"
        if len(self._under_way) >= _MOST_UNDER_WAY:
            raise Busy(f"{_MOST_UNDER_WAY} calls wait for the semantic cache's process")
        self._count += 1
        number = self._count
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._under_way[number] = future
        self._writer.write(framed(Call(number, name, msgspec.Raw(packed(given)))))
        try:
            async with asyncio.timeout(within_s):
                return read(await future, CALLS[name].gives)
        finally:
            self._under_way.pop(number, None)

    async def _keep(self) -> None:
        """Hold a connection, and make another whenever it ends."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._serve_one()
            except EmbedderError as exc:
                self._refusal = exc
                self._settled.set()
                _log.error("the semantic cache cannot be opened: %s", exc)
            except (OSError, EOFError, ValueError, TimeoutError, StoreFailed) as exc:
                if self.is_up:
                    _log.warning("the semantic cache's process is away: %s", exc or "it ended")
            finally:
                self._lose()
            await asyncio.sleep(self._backoff.wait_after(loop.time() - began))

    async def _serve_one(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._socket)
        reading = asyncio.create_task(self._read(reader))
        try:
            opened = asyncio.create_task(self._asked(OPEN, (self._opening,), self._opens_within_s))
            await asyncio.wait((opened, reading), return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                opened.cancel()
                await reading
                raise EOFError("it ended while it opened")
            self.version = opened.result()
            self.is_up, self._refusal = True, None
            self._settled.set()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            answer: Answer = read(await read_frame(reader), Answer)
            future = self._under_way.get(answer.number)
            if future is None or future.done():
                continue
            if answer.trouble is None:
                future.set_result(answer.found)
            else:
                future.set_exception(_error(*answer.trouble))

    def _hang_up(self) -> None:
        if self.is_up and self._writer is not None:
            _log.warning("the semantic cache's process does not answer in time")
            self._writer.transport.abort()
        self._lose()

    def _lose(self) -> None:
        """Tell everybody who waits that nothing will come."""
        self.is_up = False
        for future in self._under_way.values():
            if not future.done():
                future.set_exception(StoreFailed("the semantic cache's process went away"))
                future.exception()  # who asked may have left; nobody else need hear of it
        self._under_way.clear()


def _error(kind: str, words: str) -> Exception:
    if kind == "embedder":
        return EmbedderError(words)
    return Busy(words) if kind == "busy" else StoreFailed(words)


class RemoteVectors:
    """The embedder of another process."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def version(self) -> str:
        """Return what tells these vectors from those of other embedders; empty until known."""
        return self._line.version

    async def whole(self, text: str) -> Vector | None:
        """Return the vector of a text; None for one longer than the model reads."""
        found: Vector | None = await self._line.call("whole", text)
        return found


class RemoteAnswers:
    """The semantic cache of another process; loses a hit rather than a request."""

    def __init__(self, line: Line) -> None:
        self.lost = 0
        self._line = line

    @property
    def version(self) -> str:
        """Return what tells these vectors from those of other embedders; empty until known."""
        return self._line.version

    async def vector(self, text: str) -> Vector | None:
        """Return the vector of a question; None where it cannot be had now."""
        found: Vector | None = await self._tried("vector", text)
        return found

    async def alike(self, one: str, other: str) -> bool | None:
        """Return whether two answers mean the same; None where that cannot be told now."""
        found: bool | None = await self._tried("alike", one, other)
        return found

    async def find(
        self, asked: Asked, vector: Vector, terms: Terms, request_id: str = ""
    ) -> SemanticHit | None:
        """Return an answer that serves, or None."""
        found: SemanticHit | None = await self._tried("find", asked, vector, terms, request_id)
        return found

    async def keep(
        self, asked: Asked, vector: Vector, reply: CachedReply, *, answer: str, terms: Terms
    ) -> None:
        """Keep an answer, unless it is larger than allowed."""
        if reply.size <= terms.max_entry:
            await self._tried("keep", asked, vector, reply, answer, terms)

    async def drop(
        self, wanted: Scope, *, question: str | None = None, dry_run: bool = False
    ) -> int:
        """Remove the entries that somebody means. Raises StoreFailed."""
        found: int = await self._line.call("drop", wanted, question, dry_run)
        return found

    async def observe(self, asked: Asked, entry_id: str, terms: Terms, *, was_right: bool) -> None:
        """Take note of an audited hit."""
        await self._tried("observe", asked, entry_id, terms, was_right)

    async def teach(self, asked: Asked, entry_id: str, *, was_right: bool) -> None:
        """Take note of whether an answer would have served that was not sure enough to."""
        await self._tried("teach", asked, entry_id, was_right)

    async def doubt(self, request_id: str, tenant: str) -> bool:
        """Take note that a tenant's client found an answer wrong; False for one long ago."""
        found: bool | None = await self._tried("doubt", request_id, tenant)
        return bool(found)

    async def alias(self, asked: Asked, entry_id: str) -> None:
        """Take note that a judge found an entry's answer to answer the asked question too."""
        await self._tried("alias", asked, entry_id)

    async def budgets(self) -> list[tuple[str, str, ErrorBudget]]:
        """Return tenant, route and error budget of all that were audited. Raises StoreFailed."""
        found: list[tuple[str, str, ErrorBudget]] = await self._line.call("budgets")
        return found

    async def count(self) -> int:
        """Return how many entries there are. Raises StoreFailed."""
        found: int = await self._line.call("count")
        return found

    async def counted(self) -> SemanticStats:
        """Return what all workers have counted, and as errors what this one has lost besides."""
        stats: SemanticStats = await self._tried("counted") or SemanticStats()
        stats.errors += self.lost
        return stats

    async def _tried(self, name: str, *given: object) -> Any:
        try:
            return await self._line.call(name, *given)
        except (StoreFailed, EmbedderError, Busy, ValueError) as exc:
            if not self.lost:
                _log.warning("the semantic cache is done without: %s: %s", name, exc)
            self.lost += 1
            return None


class RemoteHost:
    """Lends what stands in the process that listens on `socket`."""

    def __init__(
        self, socket: Path, *, deadline_s: float = 1.0, opens_within_s: float = 20.0
    ) -> None:
        self._socket = socket
        self._deadline_s = deadline_s
        self._opens_within_s = opens_within_s

    @asynccontextmanager
    async def embedding(self, name: str) -> AsyncIterator[RemoteVectors]:
        """Lend the embedder of a name. Raises EmbedderError."""
        async with self._line(Opening(Place(name, None), is_for_answers=False)) as line:
            yield RemoteVectors(line)

    @asynccontextmanager
    async def answers(self, place: Place) -> AsyncIterator[RemoteAnswers]:
        """Lend the answers kept in a place. Raises EmbedderError."""
        async with self._line(Opening(place, is_for_answers=True)) as line:
            yield RemoteAnswers(line)

    def _line(self, opening: Opening) -> Line:
        return Line(
            self._socket,
            opening,
            deadline_s=self._deadline_s,
            opens_within_s=self._opens_within_s,
        )
