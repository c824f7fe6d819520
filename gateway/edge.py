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
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.departure import ClientGone, Watch
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, PayloadTooLarge
from gateway.pipeline import Pipeline
from gateway.reply import Reply
from gateway.request import ChatRequest, RawHeaders, parse_chat
from gateway.wire import Part

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

CHAT_PATHS = frozenset(("/v1/chat/completions", "/chat/completions"))
_JSON = (b"content-type", b"application/json")
_SSE = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no")]  # fmt: skip
_DONE = b"data: [DONE]\n\n"
_KEEPALIVE = b": keep-alive\n\n"
_log = logging.getLogger(__name__)


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

    def _new_id(self) -> str:
        """Return an id that grows with time, which keeps the ledger's index small to update."""
        self._count = (self._count + 1) & 0xFFFF
        return f"req_{time.time_ns():016x}{self._count:04x}{self._process}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        request_id = self._new_id()
        if scope["path"] in CHAT_PATHS:
            await self._chat(scope, receive, send, request_id)
        else:
            await self._rest(scope, receive, _with_request_id(send, request_id))

    async def _chat(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        pipeline = self._pipeline()
        try:
            request, reply = await _opened(pipeline, scope, receive, request_id)
            if reply.is_instant:
                await _instant(request, reply, send)
                return
            answer = _stream if request.stream else _whole
            with Watch(scope, receive, reply):
                await answer(request, reply, send)
        except ClientGone:
            _log.debug("client of %s left", request_id)
        except GatewayError as exc:
            await send_error(send, exc, request_id)
        except Exception:
            _log.exception("request %s failed", request_id)
            await send_error(send, GatewayError("the gateway failed; see its log"), request_id)


async def _opened(
    pipeline: Pipeline, scope: Scope, receive: Receive, request_id: str
) -> tuple[ChatRequest, Reply]:
    try:
        return await _open(pipeline, scope, receive, request_id)
    except GatewayError as exc:
        if exc.is_refusal:
            pipeline.refusals.count(exc.code or exc.type)
        raise


async def _open(
    pipeline: Pipeline, scope: Scope, receive: Receive, request_id: str
) -> tuple[ChatRequest, Reply]:
    if scope["method"] != "POST":
        raise MethodNotAllowed(f"expected POST, found {scope['method']}")
    headers: RawHeaders = dict(scope["headers"])
    client = scope["client"]
    caller = pipeline.keys.identify(
        headers.get(b"authorization"), client[0] if client else None, headers.get(b"host", b"")
    )
    raw = await _read_body(receive, headers, pipeline.policy.server.max_body)
    request = parse_chat(raw, headers, request_id)
    return request, pipeline.open(request, caller)


async def _read_body(receive: Receive, headers: RawHeaders, limit: int) -> bytes:
    if int(headers.get(b"content-length", b"0")) > limit:
        raise _too_large(limit)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise InvalidRequest("expected an uncompressed body; leave out content-encoding")
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise ClientGone
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
    if message["type"] == "http.disconnect":
        raise ClientGone
    return b"".join(chunks)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body may hold {limit} bytes; send less")


async def _instant(request: ChatRequest, reply: Reply, send: Send) -> None:
    """Send an answer that is all there, in one write."""
    parts = await reply.replay()
    if request.stream:
        last = reply.cost_event() + _DONE if request.include_cost else _DONE
        body = b"".join([*[part.data for part in parts], last])
        await _send(send, 200, [*_SSE, *reply.headers(cost=False)], body)
    else:
        await _send_json(send, parts[0].data, reply)


async def _send_json(send: Send, body: bytes, reply: Reply) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *reply.headers(cost=True)]
    await _send(send, 200, headers, body)


async def _whole(request: ChatRequest, reply: Reply, send: Send) -> None:
    body = b"".join([part.data async for part in reply.parts()])
    # The parts have ended, so the entry is durable: now the answer may leave.
    await _send_json(send, body, reply)


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


async def send_error(send: Send, exc: GatewayError, request_id: str) -> None:
    """Send one OpenAI-shaped error."""
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
    await _send(send, exc.status, headers, body)


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
