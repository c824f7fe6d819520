"""Connections to one origin, kept open and handed from request to request."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from gateway.errors import ProviderTimeout, ProviderUnavailable
from gateway.upstream.connection import ClosedUnanswered, Connection, Exchange
from gateway.upstream.head import HeadWriter
from gateway.upstream.tls import context_for
from gateway.upstream.types import Deadlines, Headers, Origin

MAX_CONNECTIONS = 512
KEEP_IDLE_S = 30.0


class Pool:
    """A bounded pool: the connection used last is used first, requests wait in order."""

    def __init__(
        self, origin: Origin, *, size: int = MAX_CONNECTIONS, keep_idle_s: float = KEEP_IDLE_S
    ) -> None:
        self._origin = origin
        self._tls: ssl.SSLContext | None = context_for(origin.ca_file) if origin.is_tls else None
        self._heads = HeadWriter(origin.authority)
        self._size = size
        self._keep_idle_s = keep_idle_s
        self._idle: dict[Connection, float] = {}  # in order of return
        self._open: set[Connection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def request(
        self, path: str, headers: Headers, body: bytes, deadlines: Deadlines
    ) -> Exchange:
        """Post a body and return the answer once its head is there; see `Transport.request`."""
        message = self._heads.write(path, headers, body)
        loop = asyncio.get_running_loop()
        now = loop.time()
        connection = self._take_idle()
        while True:
            is_reused = connection is not None
            if connection is None:
                connection = await self._acquire(loop, now + deadlines.connect_s, deadlines)
            exchange = Exchange(connection, deadlines, now)
            connection.send(message, exchange)
            try:
                await exchange.head()
            except ClosedUnanswered:
                if not is_reused:
                    raise
                # The upstream had given the idle connection up: ask once more on a new one.
                connection = None
            except BaseException:
                exchange.abort()
                raise
            else:
                return exchange
