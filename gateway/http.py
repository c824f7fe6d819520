"""The server's HTTP/1.1: bounded heads, deadlines for what a client sends, and our envelope."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.departure import WHEN_GONE
from gateway.errors import GatewayError, InvalidRequest
from policies.schema import Server

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers that a client may send."""


class HeadTooLarge(GatewayError):
    """Request line and headers pass their limit."""

    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class RequestTooSlow(GatewayError):
    """A request was begun and not completed within its time."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"


def http_protocol(server: Server) -> type[HttpProtocol]:
    """Return the protocol with the deadlines of a policy."""

    class Timed(HttpProtocol):
        head_within_s = server.head_within
        body_within_s = server.body_within

    return Timed


class HttpProtocol(HttpToolsProtocol):
    """One client's connection.

    A head must be complete `head_within_s` after its first byte, or after the
    connection, and a body `body_within_s` after its head. One timer a
    connection looks at that from time to time, so that a request costs none.
    """

    head_within_s: float = Server().head_within
    body_within_s: float = Server().body_within
    _due = math.inf
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = False
    _gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._due = self.loop.time() + self.head_within_s
        self._look_in(self.head_within_s)

    def data_received(self, data: bytes) -> None:
        """Take what a client sends; a head without end is refused."""
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(HeadTooLarge(f"expected at most {MAX_HEAD} bytes of headers"))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head."""
        self._head_bytes = 0
        self._is_in_head = True
        self._due = self.loop.time() + self.head_within_s
        super().on_message_begin()
        told: dict[str, Any] = {WHEN_GONE: self._when_gone}
        self.scope["extensions"] = told

    def _when_gone(self, act: Callable[[], None] | None) -> None:
        self._gone = act

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client that it is gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        act, self._gone = self._gone, None
        if act is not None:
            act()

    def on_headers_complete(self) -> None:
        """Stop counting, and start the application."""
        self._is_in_head = False
        self._due = self.loop.time() + self.body_within_s
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect no more of this request."""
        self._due = math.inf
        super().on_message_complete()

    def _look_in(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Refuse a request that is overdue, else come again when one could be."""
        left_s = self._due - self.loop.time()
        if left_s > 0 or self._is_behind_another():
            shortest = min(self.head_within_s, self.body_within_s)
            self._look_in(left_s if 0 < left_s < shortest else shortest)
        elif self.cycle is None and not self._is_in_head:
            self.transport.close()  # nothing was asked
        else:
            self._refuse(RequestTooSlow(self._overdue()))

    def _is_behind_another(self) -> bool:
        """Return whether the request waits for the answer to an earlier one: we do not read it."""
        cycle = self.cycle
        is_answering = cycle is not None and not cycle.response_complete
        return bool(self.pipeline) or (self._is_in_head and is_answering)

    def _overdue(self) -> str:
        what, within_s = "head", self.head_within_s
        if not self._is_in_head:
            what, within_s = "body", self.body_within_s
        return f"expected the request's {what} within {within_s:g} s; it was not complete by then"

    def send_400_response(self, msg: str) -> None:
        """Refuse what could not be parsed."""
        self._refuse(InvalidRequest("expected an HTTP/1.1 request, found something else"))

    def _refuse(self, error: GatewayError) -> None:
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = msgspec.json.encode(error.body())
            lines = (
                f"HTTP/1.1 {error.status} {type(error).__name__}",
                "content-type: application/json",
                f"content-length: {len(body)}",
                f"x-request-id: req_{secrets.token_hex(14)}",
                "connection: close",
            )
            self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        # Else an answer is under way, and more bytes would be taken for its own.
        self.transport.close()
