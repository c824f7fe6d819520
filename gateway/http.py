"""The server's HTTP/1.1: bounded heads, and our envelope around what is no HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.departure import WHEN_GONE
from gateway.errors import GatewayError, InvalidRequest

MAX_HEAD = 64 * 1024
"""Bytes of request line and headers that a client may send."""


class HeadTooLarge(GatewayError):
    """Request line and headers pass their limit."""

    status = 431
    type = "invalid_request_error"
    default_code = "headers_too_large"


class HttpProtocol(HttpToolsProtocol):
    """One client's connection."""

    _head_bytes = 0
    _is_in_head = False
    _gone: Callable[[], None] | None = None

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
        super().on_message_begin()
        told: dict[str, Any] = {WHEN_GONE: self._when_gone}
        self.scope["extensions"] = told

    def _when_gone(self, act: Callable[[], None] | None) -> None:
        self._gone = act

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client that it is gone."""
        super().connection_lost(exc)
        act, self._gone = self._gone, None
        if act is not None:
            act()

    def on_headers_complete(self) -> None:
        """Stop counting, and start the application."""
        self._is_in_head = False
        super().on_headers_complete()

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
