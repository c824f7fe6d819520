"""The server's HTTP/1.1: bounded heads, deadlines for what clients send and read, our envelope."""

from __future__ import annotations

import asyncio
import math
import secrets
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.departure import WHEN_GONE, Tell
from gateway.edge import CHAT_PATHS, OPENED, Opened
from gateway.errors import GatewayError, InvalidRequest
from gateway.instant import DateLines, Driver, WholeAnswer, write_when_made
from gateway.outflow import Outflow
from policies.schema import Server

_CHAT_URLS = frozenset(path.encode() for path in CHAT_PATHS)
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
        send_within_s = server.send_within

    return Timed


class HttpProtocol(HttpToolsProtocol):
    """One client's connection.

    A head must be complete `head_within_s` after its first byte, or after the
    connection, and a body `body_within_s` after its head. Whoever leaves what is
    sent to them unread for `send_within_s` has left (`Outflow`). One timer a
    connection looks at that from time to time, so that a request costs none.

    A chat completion that arrives whole is opened here, and answered here unless
    it is to be streamed; all else is the application's. That is told what was
    opened, so that nothing is done twice.
    """

    head_within_s: float = Server().head_within
    body_within_s: float = Server().body_within
    send_within_s: float = Server().send_within
    _due = math.inf
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = False
    _open_now: Callable[[list[tuple[bytes, bytes]], str | None, bytes], Opened] | None = None
    _tell: Tell
    _lines = DateLines()
    _idle_until = math.inf
    _held: list[bytes] | None = None
    _gone: Callable[[], None] | None = None
    _outflow: Outflow

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._open_now = getattr(self.app, "open_now", None)
        self._tell = getattr(self.app, "telling", _as_it_is)(self._when_gone)
        self._due = self.loop.time() + self.head_within_s
        self._outflow = Outflow(self.send_within_s)
        self._look_in(self._shortest_s)

    def data_received(self, data: bytes) -> None:
        """Take what a client sends; a head without end is refused."""
        self._idle_until = math.inf
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._refuse(HeadTooLarge(f"expected at most {MAX_HEAD} bytes of headers"))
                return
        super().data_received(data)
        if self._held is not None:
            self._let_go()

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a head; what the application is told is made when it asks."""
        self._head_bytes = 0
        self._is_in_head = True
        self._due = self.loop.time() + self.head_within_s
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def _begin(self, opened: Opened | None = None) -> None:
        """Let the application have the request, and what was opened of it."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers
        told: dict[str, Any] = {WHEN_GONE: self._when_gone, OPENED: opened}
        self.scope["extensions"] = told
        super().on_headers_complete()

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
        """Stop counting, and start the application, unless the answer may be instant."""
        self._is_in_head = False
        self._due = self.loop.time() + self.body_within_s
        if self._may_be_held():
            self._held = []
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        """Expect no more of this request; answer it here if that can be done at once."""
        self._due = math.inf
        if self._held is None or self._open_now is None:
            super().on_message_complete()
            return
        raw, self._held = b"".join(self._held), None
        client = self.client[0] if self.client else None
        opened = self._open_now(self.headers, client, raw)
        if opened.is_stream and not opened.is_immediate:
            self._begin(opened)
            super().on_message_complete()
        else:
            self._answer(opened)

    def _may_be_held(self) -> bool:
        cycle = self.cycle
        return (
            self._open_now is not None
            and self.url in _CHAT_URLS
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and (cycle is None or cycle.response_complete)
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
        )

    def _let_go(self) -> None:
        """Hand over a request whose body goes on."""
        pieces, self._held = self._held or [], None
        if self.parser is None or self.transport.is_closing():
            return
        self._begin()
        for piece in pieces:
            super().on_body(piece)

    def _answer(self, opened: Opened) -> None:
        answer = WholeAnswer(
            self.transport,
            lines=self._lines_of_all,
            keep_alive=self.parser.should_keep_alive(),
            on_done=self.on_response_complete,
        )
        cycle: Any = answer  # it stands in for uvicorn's
        self.cycle = cycle
        if opened.is_immediate:
            Driver(opened.answer(), answer, self.loop).step()
        elif opened.may_be_told:
            driver = Driver(opened.told(), answer, self.loop, partial(self._make, opened, answer))
            self._tell(driver.give_up)
            driver.step()
        else:
            self._make(opened, answer)

    def _make(self, opened: Opened, answer: WholeAnswer) -> None:
        """Have an answer made that takes its time, and is given up when its client leaves."""
        self._gone = None
        task = self.loop.create_task(write_when_made(opened.whole(self._tell), answer))
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: opened.let_go())  # it may have ended before it began
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """Expect another request for a while: a deadline, where uvicorn sets a timer each time."""
        self.server_state.total_requests += 1
        self._gone = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._idle_until = self.loop.time() + self.timeout_keep_alive

    def _lines_of_all(self) -> bytes:
        return self._lines.of(self.server_state.default_headers)

    def _look_in(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def resume_writing(self) -> None:
        """Go on writing: the client has read."""
        self._outflow.went_on()
        super().resume_writing()

    def _look(self) -> None:
        """Let go of who does not read, refuse who does not go on; come again when that could be."""
        now, transport = self.loop.time(), self.transport
        if self._outflow.is_stuck(transport.get_write_buffer_size(), now):
            self._break_off()
            return
        left_s = min(self._due, self._idle_until) - now
        if transport.is_closing():
            left_s = math.inf  # all that is left to do is to be read
        elif left_s <= 0 and not (now < self._idle_until and self._is_behind_another()):
            self._end(now)
        self._look_in(left_s if 0 < left_s < self._shortest_s else self._shortest_s)

    def _break_off(self) -> None:
        """End the connection, and what the system would go on holding to send."""
        wire = self.transport.get_extra_info("socket")
        if wire is not None:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @property
    def _shortest_s(self) -> float:
        waits = (self.head_within_s, self.body_within_s, self.send_within_s)
        return min(*waits, self.timeout_keep_alive)

    def _end(self, now: float) -> None:
        """Close a connection on which nothing was asked in time, or not to the end."""
        if now >= self._idle_until or (self.cycle is None and not self._is_in_head):
            self.transport.close()
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


def _as_it_is(tell: Tell) -> Tell:
    return tell
