"""What Redis answers on one connection, in the order in which it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis

_NOT_YET = object()

Take = Callable[[Any], None]
Lost = Callable[[Exception], None]


def _nobody(_: object) -> None:
    """Hear nothing."""


class Replies(asyncio.Protocol):
    """Reads a connection that was greeted by the client and has nothing outstanding.

    `take` gets every reply as it comes, an error as `hiredis.ReplyError`; `lost`
    learns of the connection's end. A stream would take two tasks and some copies
    a reply, which cost more than the reply.
    """

    def __init__(self, transport: asyncio.Transport, take: Take, lost: Lost) -> None:
        self._transport = transport
        self._take = take
        self._lost = lost
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        transport.set_protocol(self)

    def write(self, commands: bytes) -> None:
        """Send commands that are packed already."""
        self._transport.write(commands)

    def let_go(self) -> None:
        """Tell nobody any more."""
        self._take = self._lost = _nobody

    def data_received(self, data: bytes) -> None:
        """Hand out every reply that is complete."""
        reader = self._reader
        reader.feed(data)
        try:
            while (found := reader.gets()) is not _NOT_YET:
                self._take(found)
        except hiredis.ProtocolError as exc:
            lost = self._lost
            self.let_go()
            self._transport.abort()
            lost(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that nothing more will come."""
        self._lost(exc or ConnectionError("Redis closed the connection"))
