"""An instant answer on its connection: no task, no events, one write.

It takes the place of uvicorn's cycle: the same attributes tell whoever looks
at a connection (pipelining, shutting down, losing the client) how far it is.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop, Future, Transport
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from gateway.edge import Answer

_LAST = b"\r\n0\r\n\r\n"
_log = logging.getLogger(__name__)


class _Nobody:
    """Whom uvicorn would wake: nobody waits for more of this request."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY = _Nobody()


class Instant:
    """Drives a coroutine that waits for little, and writes the answer that it returns.

    A task would cost more than the answer. The coroutine may wait for futures; it
    has no task, so it can use neither timeouts nor cancellation. `on_done` is
    called once the answer was written.
    """

    __slots__ = (
        "_coroutine", "_date", "_loop", "_on_done", "_transport", "disconnected", "keep_alive",
        "response_complete", "response_started",
    )  # fmt: skip
    message_event = _NOBODY
    more_body = False

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Answer],
        transport: Transport,
        loop: AbstractEventLoop,
        *,
        date: Callable[[], list[tuple[bytes, bytes]]],
        keep_alive: bool,
        on_done: Callable[[], None],
    ) -> None:
        self._coroutine = coroutine
        self._transport = transport
        self._loop = loop
        self._date = date
        self._on_done = on_done
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def step(self, _: object = None) -> None:
        """Go on until the coroutine waits for something, or has returned its answer."""
        try:
            waited_for: Future[Any] | None = self._coroutine.send(None)
        except StopIteration as ended:
            self._write(*ended.value)
        except Exception:
            _log.exception("an instant answer failed")
            self._transport.close()
        else:
            if waited_for is None:
                self._loop.call_soon(self.step)
            else:
                # As a task says that it waits as it should.
                waited_for._asyncio_future_blocking = False
                waited_for.add_done_callback(self.step)

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if self.disconnected:
            return
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a header holds characters that would end it")
        lines = [STATUS_LINE[status]]
        for name, value in self._date():
            lines += (name, b": ", value, b"\r\n")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if any(name == b"content-length" for name, _ in headers):
            lines += (b"\r\n", body)
        else:
            lines += (b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body), body, _LAST)
        self.response_started = self.response_complete = True
        self._transport.write(b"".join(lines))
        if not self.keep_alive:
            self._transport.close()
        self._on_done()
