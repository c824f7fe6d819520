"""The HTTP server on raw sockets: what it takes, what it refuses, what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from local_engine.http1 import (
    Connection,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    error_response,
    json_response,
)

LIMITS = HttpLimits(header_bytes=2048, body_bytes=4096)


class Echo:
    """Answer with what was asked; stream, block or fail by the path."""

    def __init__(self) -> None:
        self.is_cancelled = asyncio.Event()
        self.has_begun = asyncio.Event()

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/stream":
            return HttpResponse(200, self._pieces(), "text/event-stream")
        if request.path == "/block":
            try:
                self.has_begun.set()
                await asyncio.Event().wait()
            finally:
                self.is_cancelled.set()
        if request.path == "/odd":
            return error_response(599, "odd", code="odd")
        value = {"method": request.method, "path": request.path, "body": request.body.decode()}
        return json_response(value)

    async def _pieces(self) -> AsyncIterator[bytes]:
        for n in range(3):
            yield f"piece {n}\n".encode()


class Served:
    """A listening server, and how to talk to it."""

    def __init__(self, echo: Echo, port: int) -> None:
        self.echo = echo
        self.port = port

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *parts: bytes) -> bytes:
        """Send bytes in pieces, and return all that comes until the server closes."""
        reader, writer = await self.open()
        for part in parts:
            writer.write(part)
            await writer.drain()
        data = await reader.read()
        writer.close()
        return data


@contextlib.asynccontextmanager
async def serving(limits: HttpLimits = LIMITS) -> AsyncIterator[Served]:
    echo = Echo()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await Connection(reader, writer, echo, limits).serve()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Served(echo, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as one:
        yield one


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def bodies(data: bytes) -> list[dict[str, str]]:
    """Return the JSON bodies of answers one after another."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        data = rest[length:]
    return found


CLOSE = b"GET /last?x=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def test_requests_follow_each_other_on_one_connection(served: Served) -> None:
    data = await served.send(post("/a", b"one"), post("/b", b"two"), CLOSE)

    assert [(b["path"], b["body"]) for b in bodies(data)] == [
        ("/a", "one"),
        ("/b", "two"),
        ("/last", ""),
    ]


async def test_requests_sent_all_at_once_are_answered_in_order(served: Served) -> None:
    data = await served.send(post("/a", b"one") + post("/b", b"two") + CLOSE)

    assert [b["path"] for b in bodies(data)] == ["/a", "/b", "/last"]


async def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    data = await served.send(*(bytes([b]) for b in post("/a", b"one", "connection: close")))

    assert bodies(data)[0]["body"] == "one"


async def test_chunked_body_is_put_together(served: Served) -> None:
    head = b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"3\r\none\r\n4;note=x\r\ntwo!\r\n0\r\nTrailer: y\r\n\r\n"
    data = await served.send(head + body + CLOSE)

    assert [b["body"] for b in bodies(data)] == ["onetwo!", ""]


async def test_client_that_waits_to_be_asked_for_its_body_is_asked(served: Served) -> None:
    reader, writer = await served.open()
    head, _, body = post("/a", b"one", "expect: 100-continue").partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    asked = await reader.readuntil(b"\r\n\r\n")
    writer.write(body + CLOSE)
    data = await reader.read()
    writer.close()

    assert asked.startswith(b"HTTP/1.1 100 ")
    assert bodies(data)[0]["body"] == "one"


async def test_stream_is_chunked_and_the_connection_goes_on(served: Served) -> None:
    data = await served.send(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n" + CLOSE)

    assert b"transfer-encoding: chunked" in data
    assert b"8\r\npiece 0\n\r\n8\r\npiece 1\n\r\n8\r\npiece 2\n\r\n0\r\n\r\n" in data
    assert data.endswith(b"}")


async def test_older_clients_get_a_plain_stream_ended_by_closing(served: Served) -> None:
    data = await served.send(b"GET /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")

    head, _, body = data.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert body == b"piece 0\npiece 1\npiece 2\n"


async def test_older_clients_may_keep_the_connection_for_whole_answers(served: Served) -> None:
    first = b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    data = await served.send(first + b"GET /b HTTP/1.0\r\n\r\n")

    assert [b["path"] for b in bodies(data)] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nna me: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nname : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: x\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: \0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n", 413),
        (b"POST / HTTP/1.1\r\ncontent-length: 4097\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 3000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\na: " + b"x" * 3000, 431),
    ],
)
async def test_malformed_requests_are_refused_and_the_connection_closed(
    served: Served, data: bytes, status: int
) -> None:
    reply = await served.send(data)

    assert reply.startswith(f"HTTP/1.1 {status} ".encode())
    assert bodies(reply)[0]["error"]["type"] == "invalid_request_error"  # type: ignore[index]


async def test_client_that_leaves_cancels_the_handler(served: Served) -> None:
    _, writer = await served.open()
    writer.write(post("/block", b""))
    await served.echo.has_begun.wait()
    writer.close()

    await asyncio.wait_for(served.echo.is_cancelled.wait(), 10)


async def test_client_that_leaves_in_the_middle_of_its_body_harms_nobody(served: Served) -> None:
    _, writer = await served.open()
    writer.write(post("/a", b"one")[:-1])
    writer.close()
    data = await served.send(CLOSE)

    assert bodies(data)[0]["path"] == "/last"


async def test_client_that_floods_during_an_answer_is_not_read_without_bound(
    served: Served,
) -> None:
    reader, writer = await served.open()
    writer.write(post("/block", b""))
    await served.echo.has_begun.wait()
    writer.write(b"x" * (1 << 22))
    # What the server does not read stays in our buffer: the kernel's are smaller than this.
    left = writer.transport.get_write_buffer_size()
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await reader.read()

    assert left > 0


async def test_silent_and_slow_clients_are_let_go() -> None:
    async with serving(HttpLimits(idle_s=0.01)) as served:
        assert await served.send() == b""
    async with serving(HttpLimits(read_s=0.01)) as served:
        assert await served.send(b"GET / HT") == b""


async def test_unusual_status_has_no_phrase_but_is_sent(served: Served) -> None:
    data = await served.send(post("/odd", b"", "connection: close"))

    assert data.startswith(b"HTTP/1.1 599 \r\n")
