"""One request's answer, between the connection that fills it and the caller who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from gateway.upstream.deadlines import Timed
from gateway.upstream.encoding import Decoder, decoder_for
from gateway.upstream.types import DRAIN_BYTES, ENDING_S, MAX_BODY, Deadlines

HIGH_WATER = 256 * 1024
"""Unread bytes of a reply at which its upstream is no longer read."""


class Line(Protocol):
    """What an exchange needs of the connection that carries it."""

    label: str
    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]

    def arm(self, at: float) -> None:
        """Let the exchange time out at `at`, in the loop's time."""
        ...

    def disarm(self) -> None:
        """Let the deadline pass unnoticed."""
        ...

    def resume(self) -> None:
        """Read on after a pause."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Exchange(Timed):
    """One request's answer; satisfies `Response`."""

    __slots__ = (
        "_chunks",
        "_decoder",
        "_error",
        "_is_unread",
        "_line",
        "_room",
        "_waiter",
        "headers",
        "is_complete",
        "size",
        "status",
    )

    def __init__(self, line: Line, limits: Deadlines, began: float) -> None:
        super().__init__(line.label, limits, began)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = False
        self.size = 0
        self._chunks: list[bytes] = []
        self._room = HIGH_WATER
        self._line: Line | None = line
        self._waiter: asyncio.Future[None] | None = None
        self._error: ProviderError | None = None
        self._decoder: Decoder | None = None
        self._is_unread = False

    # What the caller does.

    async def head(self) -> None:
        """Wait for status and headers. Raises ProviderError."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()
        if (encoding := self.headers.get(b"content-encoding")) is not None:
            self._decoder = decoder_for(encoding, self.label)

    def header(self, name: str) -> str | None:
        """Return a header's value; `name` in lower case."""
        value = self.headers.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    async def read(self, cap: int = MAX_BODY) -> bytes:
        """Return the whole body. Raises ProviderError, also for more than `cap` bytes."""
        self._room = cap + 1  # one byte more shows that the cap is passed
        while not self.is_complete and self._error is None and self.size <= cap:
            self.has_started = self.size > 0
            await self._wait()
        if self._error is not None:
            raise self._error
        body = self._take()
        if self._decoder is not None and len(body) <= cap:
            body = self._decoder.feed(body, cap + 1)
        if len(body) > cap:
            self.abort()
            raise ProviderProtocolError(
                f"{self.label} answered with more than the {cap} bytes expected at most"
            )
        return body

    async def next_chunk(self) -> bytes:
        """Return what has arrived since the last call, and b"" at the end. Raises ProviderError."""
        while True:
            if self._chunks:
                chunk = self._take()
                if self._decoder is None:
                    return chunk
                if chunk := self._decoder.feed(chunk, MAX_BODY):
                    return chunk
            elif self.is_complete:
                return b""
            elif self._error is not None:
                raise self._error
            else:
                await self._wait()

    def abort(self) -> None:
        """Close the connection unless the answer is complete."""
        if self._line is not None:
            line, self._line = self._line, None
            line.abort()

    def finish(self) -> None:
        """Let the rest arrive unread, so that the connection may serve again."""
        if self._line is not None:
            line, self._line = self._line, None
            self._is_unread = True
            self._chunks.clear()
            self.size, self._room = 0, DRAIN_BYTES
            line.arm(line.now() + ENDING_S)
            line.resume()

    # What the connection does.

    def wake(self) -> None:
        """Let the caller look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def add(self, data: bytes) -> None:
        """Take a piece of the body."""
        self.size += len(data)
        if not self._is_unread:
            self._chunks.append(data)

    @property
    def is_full(self) -> bool:
        """Return whether no more should be read for now."""
        return self.size >= self._room

    @property
    def is_unread(self) -> bool:
        """Return whether nobody wants the rest."""
        return self._is_unread

    def complete(self) -> None:
        """Note that the body is whole."""
        self.is_complete = True
        self._line = None
        self.wake()

    def fail(self, error: ProviderError) -> None:
        """Note that no more will come."""
        if not self.is_complete:
            self._error = self._error or error
            self._line = None
            self.wake()

    def _take(self) -> bytes:
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.size = 0
        return data

    async def _wait(self) -> None:
        """Wait for news from the connection, until the deadline that now holds."""
        line = self._line
        if line is None:  # closed by ourselves
            raise ProviderUnavailable(f"{self.label} is no longer listened to")
        now = line.now()
        line.arm(self.deadline(now))
        line.resume()
        self._waiter = line.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._line is line:  # else it may serve another exchange by now
                line.disarm()
