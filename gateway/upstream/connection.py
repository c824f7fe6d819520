"""One HTTP/1.1 connection to an upstream.

No task, and one future whenever somebody waits. The single timer is set
seldom: a deadline is a number until the timer finds that it has passed.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol, cast

import httptools

from gateway.errors import (
    ProviderBrokeOff,
    ProviderError,
    ProviderProtocolError,
)
from gateway.upstream.exchange import Exchange
from gateway.upstream.types import MAX_HEAD

_NEVER = math.inf


class ClosedUnanswered(ProviderBrokeOff):
    """The connection ended before the first byte of an answer."""


class Owner(Protocol):
    """Who is told of a connection's fate."""

    def on_free(self, connection: Connection) -> None:
        """Take back a connection that may serve again."""
        ...

    def on_lost(self, connection: Connection) -> None:
        """Forget a connection."""
        ...


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after another."""

    __slots__ = (
        "_deadline",
        "_exchange",
        "_has_message",
        "_head_bytes",
        "_is_dirty",
        "_is_interim",
        "_is_paused",
        "_is_reusable",
        "_owner",
        "_parser",
        "_timer",
        "_timer_at",
        "_transport",
        "is_open",
        "is_used",
        "label",
        "loop",
        "now",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, label: str) -> None:
        self.loop = loop
        self.now = loop.time
        self.label = label
        self.is_open = False
        self.is_used = False
        self._owner = owner
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._deadline = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER
        self._is_paused = False
        self._reset()

    def _reset(self) -> None:
        self._head_bytes = 0
        self._is_interim = False
        self._has_message = False
        self._is_reusable = False
        self._is_dirty = False

    def send(self, request: bytes, exchange: Exchange) -> None:
        """Put a request on the wire; its answer goes to `exchange`."""
        self._reset()
        self._exchange = exchange
        self._transport.write(request)

    def abort(self, error: ProviderError | None = None) -> None:
        """Close at once; an exchange under way fails with that error, if somebody still waits."""
        self.is_open = False
        exchange, self._exchange = self._exchange, None
        self._transport.abort()
        if exchange is not None and error is not None:
            exchange.fail(error)

    # Deadlines

    def arm(self, at: float) -> None:
        """Let the exchange time out at `at`, in the loop's time."""
        self._deadline = at
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self.loop.call_at(at, self._on_timer)

    def disarm(self) -> None:
        """Let the deadline pass unnoticed."""
        self._deadline = _NEVER

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        now, at = self.now(), self._deadline
        if now < at:
            if at != _NEVER:
                self.arm(at)
        elif (exchange := self._exchange) is not None:
            self.abort(exchange.passed(now))

    def resume(self) -> None:
        """Read on after a pause."""
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast, not a check: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parse what came, then tell whoever waits, once."""
        exchange = self._exchange
        if exchange is None:  # nobody asked for this
            self.abort()
            return
        if not exchange.status:
            self._head_bytes += len(data)
            if self._head_bytes - len(data) > MAX_HEAD:
                self._break("sent headers of more than 64 KiB")
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._is_dirty = True
        self._after_parsing(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange, and with it an answer that only the close delimits."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            if exc is None and exchange.status and _is_until_close(exchange):
                exchange.complete()
            else:
                exchange.fail(self._why_lost(exchange, exc))
        del self._parser  # it holds our methods: a cycle
        self._owner.on_lost(self)

    # httptools

    def on_message_begin(self) -> None:
        """Notice a second answer to one question."""
        if self._has_message:
            self._is_dirty = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; trailers are not wanted."""
        if self._exchange is not None and not self._exchange.status:
            self._exchange.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Keep the status, or skip an interim answer."""
        exchange = self._exchange
        if exchange is None or self._has_message:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._is_interim = True
            exchange.headers.clear()
        else:
            exchange.status = status

    def on_body(self, body: bytes) -> None:
        """Hand over a piece of the body."""
        if self._exchange is not None and not self._has_message:
            self._exchange.add(body)

    def on_message_complete(self) -> None:
        """Note the end of the answer."""
        if self._is_interim:
            self._is_interim = False
            return
        self._has_message = True
        self.is_used = True
        self._is_reusable = self._parser.should_keep_alive()

    # Inside

    def _after_parsing(self, exchange: Exchange) -> None:
        if self._has_message:
            self._finish(exchange)
        elif self._is_dirty:
            self._break("sent what is not HTTP/1.1")
        elif self._head_bytes > MAX_HEAD and _head_size(exchange) > MAX_HEAD:
            self._break("sent headers of more than 64 KiB")
        elif exchange.is_full:
            self._pause(exchange)
        if self._exchange is exchange:
            exchange.wake()

    def _finish(self, exchange: Exchange) -> None:
        self._exchange = None
        self._deadline = _NEVER
        exchange.complete()
        self.resume()
        if b"transfer-encoding" in exchange.headers:
            # Trailers stay in the parser, and would open the next head.
            self._parser = httptools.HttpResponseParser(self)
        is_sent = self._transport.get_write_buffer_size() == 0
        if self._is_reusable and is_sent and not self._is_dirty and self.is_open:
            self._owner.on_free(self)
        else:
            self.abort()

    def _pause(self, exchange: Exchange) -> None:
        if exchange.is_unread:  # and more than it is worth to keep the connection
            self.abort()
        elif not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _break(self, what: str) -> None:
        self.abort(ProviderProtocolError(f"{self.label} {what}"))

    def _why_lost(self, exchange: Exchange, exc: Exception | None) -> ProviderError:
        if not self._head_bytes:
            return ClosedUnanswered(f"{self.label} closed the connection without an answer")
        if exc is not None:
            return ProviderBrokeOff(f"{self.label} broke the connection off amid its answer")
        return ProviderProtocolError(f"{self.label} ended the connection amid its answer")


def _is_until_close(exchange: Exchange) -> bool:
    """Return whether the body has no other end than the connection's (RFC 9112, 6.3)."""
    headers = exchange.headers
    return b"content-length" not in headers and not headers.get(
        b"transfer-encoding", b""
    ).lower().endswith(b"chunked")


def _head_size(exchange: Exchange) -> int:
    return sum(len(name) + len(value) + 4 for name, value in exchange.headers.items())
