"""A server that plays bytes: what an upstream may do, at its best and at its worst.

Each request is answered by the next script of a list (the last one repeats), or
by what a function of the request returns. A script is a sequence of steps:
bytes to send, `Hold` to wait, `FIN` and `RST` to end the connection.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


class Fin:
    """Close the connection in an orderly way."""


class Rst:
    """Break the connection off."""


class Hold:
    """Wait until `release()`, or until the client has gone."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.reached = asyncio.Event()

    def release(self) -> None:
        """Go on with the script."""
        self._event.set()

    async def wait(self) -> None:
        """Stand still."""
        self.reached.set()
        await self._event.wait()


FIN = Fin()
RST = Rst()
Step = bytes | Fin | Rst | Hold
Script = Iterable[Step]


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


class ScriptedUpstream:
    """Plays scripts on a free loopback port, or on a Unix socket."""

    def __init__(
        self,
        scripts: Sequence[Script] | Callable[[Received], Script],
        *,
        tls: ssl.SSLContext | None = None,
        uds: Path | None = None,
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.gone = 0
        self._scripts = scripts
        self._tls = tls
        self._uds = uds
        self._news = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Return the base URL, with /v1."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    @property
    def open(self) -> int:
        """Return how many connections are open."""
        return len(self._writers)

    async def __aenter__(self) -> Self:
        if self._uds is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self._uds))
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something about this server is so; it is looked at whenever it changes."""
        async with self._news, asyncio.timeout(20):
            await self._news.wait_for(holds)

    async def until_gone(self, count: int = 1) -> None:
        """Wait until that many clients have left before their answer was over."""
        await self.until(lambda: self.gone >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                await self._tell()
                if not await self._play(self._next(request), reader, writer):
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()
            await self._tell()

    def _next(self, request: Received) -> Script:
        if callable(self._scripts):
            return self._scripts(request)
        return self._scripts[min(len(self.requests), len(self._scripts)) - 1]

    async def _play(
        self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Return whether the connection goes on."""
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, Hold):
                if await self._left_during(step, reader):
                    return False
            elif isinstance(step, Rst):
                _reset_on_close(writer)
                writer.transport.abort()
                return False
            else:
                return False
        return True

    async def _left_during(self, hold: Hold, reader: asyncio.StreamReader) -> bool:
        waiting = asyncio.ensure_future(hold.wait())
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                return False
            self.gone += 1
            await self._tell()
            return True
        finally:
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(
    body: bytes | dict[str, Any],
    *,
    status: str = "200 OK",
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> bytes:
    """Return a whole answer with its length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"content-type": content_type, "content-length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + data


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(payload: dict[str, Any] | bytes) -> bytes:
    """Return a server-sent event."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return b"data: " + data + b"\n\n"


def stream(*events: bytes, is_done: bool = True) -> list[Step]:
    """Return the script of a whole stream, one chunk an event."""
    tail = [chunk(event(b"[DONE]"))] if is_done else []
    return [STREAM_HEAD, *(chunk(e) for e in events), *tail, STREAM_END]
