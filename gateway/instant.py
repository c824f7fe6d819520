"""Whole answers on their connection: no events between server and application, one write.

They take the place of uvicorn's cycle: the same attributes tell whoever looks
at a connection (pipelining, shutting down, losing the client) how far it is.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import AbstractEventLoop, Future, Transport
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE

from gateway.edge import Answer, Headers

_LAST = b"\r\n0\r\n\r\n"
_log = logging.getLogger(__name__)


class _Nobody:
    """Whom uvicorn would wake: nobody waits for more of this request."""

    def set(self) -> None:
        """Wake nobody."""


_NOBODY = _Nobody()


class DateLines:
    """The headers that every answer has, as bytes; uvicorn makes new ones each second."""

    __slots__ = ("_fields", "_lines")

    def __init__(self) -> None:
        self._fields: Headers | None = None
        self._lines = b""

    def of(self, fields: Headers) -> bytes:
        """Return headers as lines; the same list is joined once."""
        if fields is not self._fields:
            self._fields = fields
            self._lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        return self._lines


class WholeAnswer:
    """One answer that is written at once. `on_done` is called after that."""

    __slots__ = (
        "_lines", "_on_done", "_transport", "disconnected", "keep_alive", "response_complete",
        "response_started",
    )  # fmt: skip
    message_event = _NOBODY
    more_body = False

    def __init__(
        self,
        transport: Transport,
        *,
        lines: Callable[[], bytes],
        keep_alive: bool,
        on_done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._lines = lines
        self._on_done = on_done
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def write(self, status: int, headers: Headers, body: bytes) -> None:
        """Write an answer, unless nobody is there to read it."""
        if self.disconnected:
            return
        if HEADER_VALUE_RE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("a header holds characters that would end it")
        pieces = [STATUS_LINE[status], self._lines()]
        pieces += [b"%b: %b\r\n" % field for field in headers]
        if not self.keep_alive:
            pieces.append(b"connection: close\r\n")
        if any(name == b"content-length" for name, _ in headers):
            pieces += (b"\r\n", body)
        else:
            pieces += (b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body), body, _LAST)
        self.response_started = self.response_complete = True
        self._transport.write(b"".join(pieces))
        if not self.keep_alive:
            self._transport.close()
        self._on_done()

    def give_up(self) -> None:
        """End the connection of an answer that there is none of."""
        self._transport.close()


class Driver:
    """Drives a coroutine that waits for little, and writes the answer that it returns.

    A task would cost more than the answer. The coroutine may wait for futures; it
    has no task, so it can use neither timeouts nor cancellation. Where it returns
    no answer, `otherwise` is called.
    """

    __slots__ = ("_answer", "_coroutine", "_loop", "_otherwise", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Answer | None],
        answer: WholeAnswer,
        loop: AbstractEventLoop,
        otherwise: Callable[[], None] | None = None,
    ) -> None:
        self._coroutine = coroutine
        self._answer = answer
        self._loop = loop
        self._otherwise = otherwise
        self._waits_for: Future[Any] | None = None

    def step(self, _: object = None) -> None:
        """Go on until the coroutine waits for something, or has returned its answer."""
        self._go_on(self._coroutine.send, None)

    def give_up(self) -> None:
        """Cancel what the coroutine waits for: whoever asked has left."""
        waited_for = self._waits_for
        if waited_for is not None:
            waited_for.remove_done_callback(self.step)
            waited_for.cancel()
            self._go_on(self._coroutine.throw, asyncio.CancelledError())

    def _go_on(self, how: Callable[[Any], Any], what: object) -> None:
        self._waits_for = None
        try:
            waited_for: Future[Any] | None = how(what)
        except StopIteration as ended:
            if ended.value is not None:
                self._answer.write(*ended.value)
            elif self._otherwise is not None:
                self._otherwise()
        except asyncio.CancelledError:
            self._answer.give_up()
        except Exception:
            _log.exception("an instant answer failed")
            self._answer.give_up()
        else:
            if waited_for is None:
                self._loop.call_soon(self.step)
            else:
                # As a task says that it waits as it should.
                waited_for._asyncio_future_blocking = False
                waited_for.add_done_callback(self.step)
                self._waits_for = waited_for


async def write_when_made(making: Coroutine[Any, Any, Answer | None], answer: WholeAnswer) -> None:
    """Write the answer that a coroutine returns, if it returns one; to be run as a task."""
    try:
        made = await making
        if made is not None:
            answer.write(*made)
    except asyncio.CancelledError:
        answer.give_up()
        raise
    except Exception:
        _log.exception("a whole answer failed")
        answer.give_up()
