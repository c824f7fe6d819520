"""The process that embeds and remembers for all workers of a machine.

    python -m cache.semantic.process SOCKET

It holds one model and one index where each worker would hold its own, and texts of
all workers are embedded together. It ends when its standard input does, and on
SIGTERM; what it keeps is on disk by then.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from cache.semantic.answers import Host
from cache.semantic.calls import CALLS, OPEN, Answer, Call, Opening, framed, packed, read_frame
from cache.semantic.calls import unpacked as read
from cache.semantic.embedder import EmbedderError
from cache.semantic.service import Busy

MOST_AT_ONCE = 256
_log = logging.getLogger(__name__)


class Session:
    """One worker's connection: opens one place, then answers calls about it."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._host = host
        self._reader = reader
        self._writer = writer
        self._stack = AsyncExitStack()
        self._opened: Any = None
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Answer until the other side leaves, then let go of what it had opened."""
        try:
            async with self._stack:
                try:
                    await self._take_calls()
                finally:
                    for task in self._tasks:
                        task.cancel()
                    await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            self._writer.close()

    async def _take_calls(self) -> None:
        while True:
            try:
                call: Call = read(await read_frame(self._reader), Call)
            except (EOFError, OSError):
                return
            except ValueError as exc:
                _log.warning("a worker is let go, since it speaks otherwise: %s", exc)
                return
            await self._room.acquire()
            task = asyncio.create_task(self._answer(call))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        self._tasks.discard(task)

    async def _answer(self, call: Call) -> None:
        answer: Answer
        try:
            found = await self._carry_out(call)
            answer = Answer(call.number, None, _raw(found))
        except EmbedderError as exc:
            answer = Answer(call.number, ("embedder", str(exc)))
        except Busy as exc:
            answer = Answer(call.number, ("busy", str(exc)))
        except Exception as exc:
            # Whatever it is, it is the worker's to deal with: it goes on without an answer.
            answer = Answer(call.number, ("failed", f"{type(exc).__name__}: {exc}"))
        with suppress(OSError):
            self._writer.write(framed(answer))
            await self._writer.drain()

    async def _carry_out(self, call: Call) -> object:
        signature = CALLS[call.name]
        given: tuple[Any, ...] = read(call.given, signature.takes)
        if call.name == OPEN:
            return await self._open(*given)
        if self._opened is None:
            raise RuntimeError("expected a place to be opened first")
        plain = len(given) - len(signature.named)
        named = dict(zip(signature.named, given[plain:], strict=True))
        work: Awaitable[object] = getattr(self._opened, call.name)(*given[:plain], **named)
        return await work

    async def _open(self, opening: Opening) -> str:
        place = opening.place
        if opening.is_for_answers:
            lent: Any = self._host.answers(place)
        else:
            lent = self._host.embedding(place.embedder)
        self._opened = await self._stack.enter_async_context(lent)
        version: str = self._opened.version
        return version


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(packed(value))


async def serve(host: Host, socket: Path, stopping: asyncio.Event) -> None:
    """Serve on a Unix socket until told to stop."""
    sessions: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(Session(host, reader, writer).serve())
        sessions.add(task)
        task.add_done_callback(sessions.discard)

    # The same path is used over restarts, and a process that was killed leaves its own behind.
    await asyncio.to_thread(socket.unlink, missing_ok=True)
    server = await asyncio.start_unix_server(begin, socket)
    try:
        await stopping.wait()
    finally:
        server.close()
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)


def main(arguments: list[str]) -> int:
    """Serve until told to stop; return the exit code."""
    if len(arguments) != 1:
        print("expected one argument: the socket's path", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    import uvloop

    uvloop.run(_run(Path(arguments[0])))
    return 0


async def _run(socket: Path) -> None:
    from cache.semantic.host import LocalHost

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    # The other end belongs to whoever started us: with it, we go, however it went.
    loop.add_reader(sys.stdin.fileno(), stopping.set)
    await serve(LocalHost(), socket, stopping)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
