"""HTTP/1.1 for the engine's few endpoints: whole bodies in, whole or streamed bodies out.

Reads go through a buffer of our own, so that a client that leaves is noticed while its
answer is still being made, and a request pipelined meanwhile is kept (RFC 9112).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]{1,4096}) HTTP/1\.([01])")
_READ_SIZE = 64 << 10


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may send, and how long it may take to."""

    header_bytes: int = 32 << 10
    body_bytes: int = 8 << 20
    idle_s: float = 75.0
    read_s: float = 30.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request, read whole. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keeps_alive: bool
    can_chunk: bool


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer: bytes, or an iterator of pieces to send as they come."""

    status: int
    body: bytes | AsyncIterator[bytes]
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class BadHttp(Exception):
    """Refuse what cannot be read as a request; the connection closes after it."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def error_response(
    status: int,
    message: str,
    *,
    type: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Make an error in OpenAI's shape."""
    error = {"message": message, "type": type, "param": param, "code": code}
    return json_response({"error": error}, status, headers)


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Make an answer of compact JSON, ASCII so that any text survives."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return HttpResponse(status, body, headers=headers or {})


class Connection:
    """One client connection: requests in turn, each answered by the handler."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        limits: HttpLimits,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._limits = limits
        self._buffer = bytearray()
        self._is_gone = False
        self._is_idle = True
        self._is_closing = False

    async def serve(self) -> None:
        """Answer requests until the client leaves or asks to close."""
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                while not self._is_closing and await self._serve_one():
                    pass
        finally:
            self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def close_when_idle(self) -> None:
        """Close now, or after the answer that is under way."""
        self._is_closing = True
        if self._is_idle:
            self._writer.close()

    async def _serve_one(self) -> bool:
        try:
            request = await self._read_request()
        except BadHttp as exc:
            await self._send(error_response(exc.status, str(exc)), keeps_alive=False, chunks=True)
            return False
        if request is None:
            return False
        self._is_idle = False
        is_answered = await self._answer(request)
        self._is_idle = True
        return is_answered and request.keeps_alive

    async def _answer(self, request: HttpRequest) -> bool:
        """Run the handler and send what it gives; cancel it when the client leaves."""
        work = asyncio.create_task(self._respond(request))
        watch = asyncio.create_task(self._wait_gone())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            is_done = work.done()
            if not is_done:
                work.cancel()
            await asyncio.wait((work, watch))
        if is_done:
            work.result()
        return is_done

    async def _respond(self, request: HttpRequest) -> None:
        response = await self._handler(request)
        await self._send(response, keeps_alive=request.keeps_alive, chunks=request.can_chunk)

    async def _send(self, response: HttpResponse, *, keeps_alive: bool, chunks: bool) -> None:
        head = [
            f"HTTP/1.1 {response.status} {_phrase(response.status)}",
            f"content-type: {response.content_type}",
            *(f"{k}: {v}" for k, v in response.headers.items()),
        ]
        if isinstance(response.body, bytes):
            head.append(f"content-length: {len(response.body)}")
        elif chunks:
            head.append("transfer-encoding: chunked")
        if not keeps_alive or not (chunks or isinstance(response.body, bytes)):
            head.append("connection: close")
        data = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        if isinstance(response.body, bytes):
            self._writer.write(data + response.body)
            await self._writer.drain()
        else:
            await self._send_pieces(data, response.body, chunks=chunks)

    async def _send_pieces(
        self, head: bytes, pieces: AsyncIterator[bytes], *, chunks: bool
    ) -> None:
        async with contextlib.aclosing(pieces) as body:  # type: ignore[type-var]
            self._writer.write(head)
            async for piece in body:
                self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)
                await self._writer.drain()
        self._writer.write(b"0\r\n\r\n" if chunks else b"")
        await self._writer.drain()
        if not chunks:
            self._writer.close()

    async def _wait_gone(self) -> None:
        """Return when the client closes; keep at most one body's worth of what it sends."""
        while len(self._buffer) <= self._limits.body_bytes:
            if not await self._fill():
                return
        await asyncio.Event().wait()

    async def _fill(self) -> bool:
        data = b"" if self._is_gone else await self._reader.read(_READ_SIZE)
        self._buffer += data
        self._is_gone = not data
        return bool(data)

    async def _read_request(self) -> HttpRequest | None:
        """Read the next request, or None where the client is done."""
        async with asyncio.timeout(self._limits.idle_s):
            if not self._buffer and not await self._fill():
                return None
        async with asyncio.timeout(self._limits.read_s):
            head = await self._read_until(b"\r\n\r\n", self._limits.header_bytes, status=431)
            if head is None:
                return None
            method, target, minor, headers = _parse_head(head)
            body = await self._read_body(headers)
        wants_close = "close" in headers.get("connection", "").lower()
        wants_open = "keep-alive" in headers.get("connection", "").lower()
        return HttpRequest(
            method=method,
            path=target.partition("?")[0],
            headers=headers,
            body=body,
            keeps_alive=wants_open if minor == 0 else not wants_close,
            can_chunk=minor == 1,
        )

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is not None and (length is not None or coding.strip().lower() != "chunked"):
            raise BadHttp(400, "Expected either a content-length or 'transfer-encoding: chunked'.")
        if length is not None and not re.fullmatch(r"\d{1,15}", length):
            raise BadHttp(400, f"content-length: expected one number, found {length[:40]!r}.")
        if length is not None and int(length) > self._limits.body_bytes:
            raise self._too_large()
        if headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if coding is not None:
            return await self._read_chunks()
        return await self._read_exactly(int(length or 0))

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = await self._read_until(b"\r\n", 1024, status=400)
            size = (line or b"").partition(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,12}", size):
                raise BadHttp(400, "The chunked body is malformed.")
            count = int(size, 16)
            if len(body) + count > self._limits.body_bytes:
                raise self._too_large()
            if count == 0:
                break
            body += await self._read_exactly(count)
            if await self._read_exactly(2) != b"\r\n":
                raise BadHttp(400, "The chunked body is malformed.")
        while await self._read_until(b"\r\n", self._limits.header_bytes, status=431):
            pass  # trailers carry nothing for us
        return bytes(body)

    def _too_large(self) -> BadHttp:
        return BadHttp(413, f"The body is over {self._limits.body_bytes} bytes.")

    async def _read_until(self, end: bytes, limit: int, *, status: int) -> bytes | None:
        """Read up to and without `end`; None where the client left."""
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > limit:
                raise BadHttp(status, f"Expected a line or head under {limit} bytes.")
            if not await self._fill():
                return None
        if at > limit:
            raise BadHttp(status, f"Expected a line or head under {limit} bytes.")
        data = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return data

    async def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not await self._fill():
                raise ConnectionResetError("the client left in the middle of its request")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def _parse_head(head: bytes) -> tuple[str, str, int, dict[str, str]]:
    first, *lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadHttp(400, "Expected an HTTP/1.1 request line.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        if not colon or not _TOKEN.fullmatch(name) or b"\0" in value:
            raise BadHttp(400, "A header line is malformed.")
        if key in headers and key in ("content-length", "transfer-encoding", "host"):
            raise BadHttp(400, f"The header {key} appears twice.")
        headers[key] = value.strip().decode("latin-1")
    return match[1].decode(), match[2].decode(), int(match[3]), headers


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
