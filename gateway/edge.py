"""The hot path's HTTP: raw ASGI in front of FastAPI.

Nothing here decides: it reads a body within its bound, hands a `ChatRequest` to
the pipeline, and writes the parts that come back. Until the first byte an error
is a clean status; after it, an error event ends the stream.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.access.keys import Caller
from gateway.bodies import Recent
from gateway.departure import WHEN_GONE, ClientGone, Tell, Watch
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, PayloadTooLarge
from gateway.pipeline import Pipeline
from gateway.reply import Reply
from gateway.request import ChatRequest, RawHeaders, read_body, request_of
from gateway.telemetry.logs import REQUEST_ID
from gateway.wire import Part

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""A whole answer: its status, its headers and its body."""

OPENED = "frugal.opened"
"""The scope extension by which our own server hands over what it has opened already."""
CHAT_PATHS = frozenset(("/v1/chat/completions", "/chat/completions"))
_JSON = (b"content-type", b"application/json")
_SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no")]  # fmt: skip
_DONE = b"data: [DONE]\n\n"
_KEEPALIVE = b": keep-alive\n\n"
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Opened:
    """A request that was read and admitted, or why it was not."""

    request_id: str
    request: ChatRequest | None = None
    reply: Reply | None = None
    error: Exception | None = None

    @property
    def is_immediate(self) -> bool:
        """Return whether `answer` waits for nothing but the ledger."""
        return self.reply is not None and self.reply.is_immediate

    @property
    def may_be_told(self) -> bool:
        """Return whether `told` waits for little, and may have the answer."""
        return self.reply is not None and self.reply.may_be_told

    @property
    def is_stream(self) -> bool:
        """Return whether the answer leaves in pieces."""
        return self.request is not None and self.request.stream

    def get(self) -> tuple[ChatRequest, Reply]:
        """Return the request and its reply. Raises why there are none."""
        if self.error is not None:
            raise self.error
        assert self.request is not None, "it has not failed"
        assert self.reply is not None, "it has not failed"
        return self.request, self.reply

    async def answer(self) -> Answer:
        """Return an instant answer, or the error in its place, once its entry is durable."""
        try:
            request, reply = self.get()
            return _at_once(request, reply, await reply.replay())
        except Exception as exc:
            return self.failed(exc)

    async def told(self) -> Answer | None:
        """Return the answer that other processes have, or the error in its place.

        None where they have none: `whole` or `let_go` come next.
        """
        try:
            request, reply = self.get()
            parts = await reply.told()
            return _at_once(request, reply, parts) if parts is not None else None
        except Exception as exc:
            return self.failed(exc)

    def let_go(self) -> None:
        """Give up a place that is held at the cache, unless `whole` has gone on with it."""
        if self.reply is not None:
            self.reply.let_go()

    async def whole(self, tell: Tell) -> Answer | None:
        """Return an answer that is not streamed, or the error in its place.

        The entry is durable by then. None where the client has left (`tell` says that it has).
        """
        REQUEST_ID.set(self.request_id)
        try:
            request, reply = self.get()
            if reply.is_instant:
                return _at_once(request, reply, await reply.replay())
            with Watch(reply, tell=tell):
                return await _whole(reply)
        except ClientGone:
            _log.debug("client of %s left", self.request_id)
            return None
        except Exception as exc:
            return self.failed(exc)

    def failed(self, exc: Exception) -> Answer:
        """Return what the client is told of a failure."""
        if not isinstance(exc, GatewayError):
            _log.error("request %s failed", self.request_id, exc_info=exc)
            exc = GatewayError("the gateway failed; see its log")
        return _error(exc, self.request_id)


class Edge:
    """The ASGI application: chat completions itself, everything else to `rest`.

    `pipeline` is called for each request, so that a reload reaches the next one.
    `token` ends the ids of the requests, if it is given.
    """

    def __init__(self, pipeline: Callable[[], Pipeline], rest: App, *, token: str = "") -> None:
        self._pipeline = pipeline
        self._rest = rest
        self._process = token or secrets.token_hex(4)
        self._count = 0
        self._recent = Recent()

    def _new_id(self) -> str:
        """Return an id that grows with time, which keeps the ledger's index small to update."""
        self._count = (self._count + 1) & 0xFFFF
        return f"req_{time.time_ns():016x}{self._count:04x}{self._process}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        if scope["path"] in CHAT_PATHS:
            opened: Opened | None = (scope.get("extensions") or {}).get(OPENED)
            if opened is None:
                opened = await self._open(scope, receive)
            await self._chat(scope, receive, send, opened)
        else:
            await self._rest(scope, receive, _with_request_id(send, self._new_id()))

    def open_now(self, fields: Headers, client: str | None, raw: bytes) -> Opened:
        """Open a chat completion of `client`, posted with these headers, that is all read."""
        opened = Opened(self._new_id())
        pipeline = self._pipeline()
        try:
            headers, caller = _known(pipeline, fields, client)
            self._admit(opened, pipeline, headers, caller, raw)
        except Exception as exc:
            _close(opened, pipeline, exc)
        return opened

    async def _open(self, scope: Scope, receive: Receive) -> Opened:
        opened = Opened(self._new_id())
        pipeline = self._pipeline()
        client = scope["client"]
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"expected POST, found {scope['method']}")
            headers, caller = _known(pipeline, scope["headers"], client[0] if client else None)
            raw = await _read_body(receive, pipeline.policy.server.max_body)
            self._admit(opened, pipeline, headers, caller, raw)
        except Exception as exc:
            _close(opened, pipeline, exc)
        return opened

    def _admit(
        self, opened: Opened, pipeline: Pipeline, headers: RawHeaders, caller: Caller, raw: bytes
    ) -> None:
        if len(raw) > pipeline.policy.server.max_body:
            raise _too_large(pipeline.policy.server.max_body)
        asked = self._recent.find(raw) or read_body(raw)
        opened.request = request_of(asked, headers, opened.request_id)
        opened.reply = pipeline.open(opened.request, caller)
        if opened.reply.is_instant:
            self._recent.add(raw, asked)

    async def _chat(self, scope: Scope, receive: Receive, send: Send, opened: Opened) -> None:
        REQUEST_ID.set(opened.request_id)
        try:
            request, reply = opened.get()
            if reply.is_instant:
                await _send(send, *await opened.answer())
                return
            tell = (scope.get("extensions") or {}).get(WHEN_GONE)
            with Watch(reply, tell=tell, receive=receive):
                if request.stream:
                    await _stream(request, reply, send)
                else:
                    await _send(send, *await _whole(reply))
        except ClientGone:
            _log.debug("client of %s left", opened.request_id)
        except Exception as exc:
            await _send(send, *opened.failed(exc))


def _known(pipeline: Pipeline, fields: Headers, client: str | None) -> tuple[RawHeaders, Caller]:
    """Return a request's headers and who is asking, before its body is looked at."""
    headers: RawHeaders = dict(fields)
    caller = pipeline.keys.identify(
        headers.get(b"authorization"), client, headers.get(b"host", b"")
    )
    limit = pipeline.policy.server.max_body
    if int(headers.get(b"content-length", b"0")) > limit:
        raise _too_large(limit)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise InvalidRequest("expected an uncompressed body; leave out content-encoding")
    return headers, caller


def _close(opened: Opened, pipeline: Pipeline, exc: Exception) -> None:
    opened.error = exc
    if isinstance(exc, GatewayError) and exc.is_refusal:
        pipeline.refusals.count(exc.code or exc.type)


async def _read_body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    chunks: list[bytes] = [message.get("body", b"")]
    size = len(chunks[0])
    while message.get("more_body", False):
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
    if message["type"] == "http.disconnect":
        raise ClientGone
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may hold {limit} bytes; send less")


def _at_once(request: ChatRequest, reply: Reply, parts: Sequence[Part]) -> Answer:
    """Return an answer that is all there."""
    if not request.stream:
        return _json(parts[0].data, reply)
    last = reply.cost_event() + _DONE if request.include_cost else _DONE
    body = b"".join([*[part.data for part in parts], last])
    return 200, [*_SSE, *reply.headers(cost=False)], body


def _json(body: bytes, reply: Reply) -> Answer:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *reply.headers(cost=True)]
    return 200, headers, body


async def _whole(reply: Reply) -> Answer:
    body = b"".join([part.data async for part in reply.parts()])
    # The parts have ended, so the entry is durable: now the answer may leave.
    return _json(body, reply)


async def _stream(request: ChatRequest, reply: Reply, send: Send) -> None:
    parts = reply.parts()
    has_started = False
    try:
        async with aclosing(parts), aclosing(_kept_alive(parts, reply.keepalive)) as kept:
            async for part in kept:
                if not has_started:
                    has_started = True
                    await _start(send, 200, [*_SSE, *reply.headers(cost=False)])
                await _body(send, part.data if part is not None else _KEEPALIVE)
    except GatewayError as exc:
        if not has_started:
            raise
        await _body(send, b"data: " + msgspec.json.encode(exc.body()) + b"\n\n", more=False)
        return
    except Exception:
        if not has_started:
            raise
        _log.exception("stream %s failed", request.id)
        failure = GatewayError("the gateway failed; see its log").body()
        await _body(send, b"data: " + msgspec.json.encode(failure) + b"\n\n", more=False)
        return
    if not has_started:
        await _start(send, 200, [*_SSE, *reply.headers(cost=False)])
    last = reply.cost_event() + _DONE if request.include_cost else _DONE
    await _body(send, last, more=False)


async def _kept_alive(
    parts: AsyncGenerator[Part, None], every_s: float | None
) -> AsyncGenerator[Part | None, None]:
    """Yield the parts, and None whenever the first has kept us waiting for `every_s` more."""
    if every_s is not None:
        first = asyncio.ensure_future(anext(parts, None))
        try:
            while not (await asyncio.wait((first,), timeout=every_s))[0]:
                yield None
            if (part := first.result()) is None:
                return
            yield part
        finally:
            if not first.done():
                first.cancel()
                await asyncio.wait((first,))
    async for part in parts:
        yield part


def _error(exc: GatewayError, request_id: str) -> Answer:
    body = msgspec.json.encode(exc.body())
    headers = [_JSON, (b"content-length", b"%d" % len(body)),
               (b"x-request-id", request_id.encode())]  # fmt: skip
    if exc.retry_after is not None:
        headers.append((b"retry-after", exc.retry_after.encode("latin-1")))
    headers += [(name.encode(), value.encode()) for name, value in exc.headers.items()]
    if exc.status == 405:
        headers.append((b"allow", b"POST"))
    if exc.status == 413:
        headers.append((b"connection", b"close"))
    return exc.status, headers, body


def _with_request_id(send: Send, request_id: str) -> Send:
    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            message = {**message, "headers": [*headers, (b"x-request-id", request_id.encode())]}
        await send(message)

    return send_with_id


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await _start(send, status, headers)
    await _body(send, body, more=False)


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _body(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})
