"""The way to an origin through a proxy, by httpx.

Costlier than the pool by an order of magnitude, and alike in behaviour: one
suite of tests runs over both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import httpx

from gateway.errors import (
    ProviderBrokeOff,
    ProviderError,
    ProviderProtocolError,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.upstream.deadlines import Timed
from gateway.upstream.encoding import Decoder, decoder_for
from gateway.upstream.head import STANDARD_HEADERS
from gateway.upstream.pool import KEEP_IDLE_S, MAX_CONNECTIONS
from gateway.upstream.tls import context_for
from gateway.upstream.types import (
    DRAIN_BYTES,
    MAX_BODY,
    MAX_HEAD,
    Again,
    Deadlines,
    Headers,
    Origin,
)


class Proxied:
    """Posts through a forward proxy; satisfies `Transport`."""

    def __init__(self, origin: Origin, proxy: str) -> None:
        if not proxy.startswith(("http://", "https://")):
            scheme = proxy.partition(":")[0]
            raise ValueError(
                f"{origin.label}: expected an http or https proxy in the environment, found "
                f"{scheme}; name the host in NO_PROXY or set another proxy"
            )
        self._label = origin.label
        self._closing: set[asyncio.Task[None]] = set()
        self._client = httpx.AsyncClient(
            base_url=f"http{'s' if origin.is_tls else ''}://{origin.authority}",
            headers=STANDARD_HEADERS,
            proxy=proxy,
            verify=context_for(origin.ca_file),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_IDLE_S),
        )

    async def request(
        self,
        path: str,
        headers: Headers,
        body: bytes,
        deadlines: Deadlines,
        again: Again | None = None,
    ) -> ProxiedResponse:
        """Post a body, once, and return the answer once its head is there.

        See `Transport.request`.
        """
        loop = asyncio.get_running_loop()
        timed = Timed(self._label, deadlines, loop.time())
        timeout = httpx.Timeout(None, connect=deadlines.connect_s, pool=deadlines.connect_s)
        request = self._client.build_request(
            "POST", path, headers=list(headers), content=body, timeout=timeout
        )
        try:
            async with asyncio.timeout_at(timed.deadline(loop.time())):
                answer = await self._client.send(request, stream=True)
        except TimeoutError as exc:
            raise timed.passed(loop.time()) from exc
        except httpx.HTTPError as exc:
            raise self._error_of(exc, deadlines) from exc
        response = ProxiedResponse(answer, self, timed)
        try:
            response.prepare()
        except ProviderError:
            response.abort()
            raise
        return response

    @property
    def closing(self) -> int:
        """Return how many answers are being closed for readers that have left."""
        return len(self._closing)

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*self._closing)
        await self._client.aclose()

    def later(self, closing: Coroutine[Any, Any, None]) -> None:
        """Close an answer whose reader does not wait for it."""
        task = asyncio.ensure_future(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _error_of(self, exc: httpx.HTTPError, deadlines: Deadlines) -> ProviderError:
        if isinstance(exc, httpx.TimeoutException):
            return ProviderTimeout(
                f"{self._label} could not be connected to through the proxy within "
                f"{deadlines.connect_s:g} s (timeouts.connect)"
            )
        return _lost(self._label, exc, has_begun=False)


class ProxiedResponse(Timed):
    """The answer that httpx is reading; satisfies `Response`."""

    __slots__ = ("_answer", "_chunks", "_decoder", "_is_over", "_owner", "status")

    def __init__(self, answer: httpx.Response, owner: Proxied, timed: Timed) -> None:
        super().__init__(timed.label, timed._limits, timed._began)
        self.status = answer.status_code
        self._answer = answer
        self._owner = owner
        self._chunks: AsyncIterator[bytes] = answer.aiter_raw()
        self._decoder: Decoder | None = None
        self._is_over = False

    def prepare(self) -> None:
        """Check the head. Raises ProviderProtocolError."""
        headers = self._answer.headers.raw
        if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
            raise ProviderProtocolError(f"{self.label} sent headers of more than 64 KiB")
        if (encoding := self.header("content-encoding")) is not None:
            self._decoder = decoder_for(encoding.encode("latin-1"), self.label)

    def header(self, name: str) -> str | None:
        """Return a header's value; `name` in lower case."""
        value: str | None = self._answer.headers.get(name)
        return value

    async def read(self, cap: int = MAX_BODY) -> bytes:
        """Return the whole body. Raises ProviderError, also for more than `cap` bytes."""
        chunks: list[bytes] = []
        size = 0
        while chunk := await self._next():
            self.has_started = True
            chunks.append(chunk)
            if (size := size + len(chunk)) > cap:
                self.abort()
                raise ProviderProtocolError(
                    f"{self.label} answered with more than the {cap} bytes expected at most"
                )
        body = b"".join(chunks)
        return body if self._decoder is None else self._decoder.feed(body, cap)

    async def next_chunk(self) -> bytes:
        """Return what has arrived since the last call, and b"" at the end. Raises ProviderError."""
        while chunk := await self._next():
            if self._decoder is None:
                return chunk
            if chunk := self._decoder.feed(chunk, MAX_BODY):
                return chunk
        return b""

    def abort(self) -> None:
        """Close the connection unless the answer is complete."""
        if not self._is_over:
            self._is_over = True
            self._owner.later(self._answer.aclose())

    def finish(self) -> None:
        """Let the rest arrive unread, so that the connection may serve again."""
        if not self._is_over:
            self._is_over = self.is_ending = True
            self._owner.later(self._drain())

    async def _drain(self) -> None:
        room = DRAIN_BYTES
        with suppress(ProviderError):
            while room > 0 and (chunk := await self._next()):
                room -= len(chunk)
        await self._answer.aclose()

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self.deadline(loop.time())):
                chunk = await anext(self._chunks, b"")
        except TimeoutError as exc:
            self.abort()
            raise self.passed(loop.time()) from exc
        except httpx.HTTPError as exc:
            self.abort()
            raise _lost(self.label, exc, has_begun=True) from exc
        self._is_over = self._is_over or not chunk
        return chunk


def _lost(label: str, exc: httpx.HTTPError, *, has_begun: bool) -> ProviderError:
    if isinstance(exc, httpx.RemoteProtocolError):
        if has_begun:
            return ProviderProtocolError(f"{label} ended the connection amid its answer")
        if "without sending a response" in str(exc):
            return ProviderBrokeOff(f"{label} closed the connection without an answer")
        return ProviderProtocolError(f"{label} sent what is not HTTP/1.1")
    if has_begun:
        return ProviderBrokeOff(f"{label} broke the connection off amid its answer")
    return ProviderUnavailable(f"{label} could not be reached through the proxy")
