"""Connections to one origin, kept open and handed from request to request."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from gateway.errors import ProviderTimeout, ProviderUnavailable
from gateway.upstream.connection import ClosedUnanswered, Connection
from gateway.upstream.exchange import Exchange
from gateway.upstream.head import HeadWriter
from gateway.upstream.tls import context_for
from gateway.upstream.types import Again, Deadlines, Headers, Origin

MAX_CONNECTIONS = 4096
"""One a call under way; what the process may really open is up to its file limit."""

KEEP_IDLE_S = 30.0
"""Below the idle limits of common proxies."""


class Pool:
    """A bounded pool: the connection used last is used first, requests wait in order.

    Slots are counted, not connections: one that is being opened, or promised
    to a waiter, holds its slot already.
    """

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
        self._all_lost = asyncio.Event()

    async def request(
        self,
        path: str,
        headers: Headers,
        body: bytes,
        deadlines: Deadlines,
        again: Again | None = None,
    ) -> Exchange:
        """Post a body and return the answer once its head is there; see `Transport.request`."""
        message = self._heads.write(path, headers, body)
        loop = asyncio.get_running_loop()
        now = loop.time()
        connection = self._take_idle() or await self._acquire(loop, now, deadlines)
        is_reused = connection.is_used
        try:
            return await _exchange(connection, message, deadlines, now)
        except ClosedUnanswered as exc:
            if not is_reused:
                raise
            gone = exc
        # The upstream had given the idle connection up: ask once more, on a new one.
        if again is not None and (told := again(gone)) is not None:
            await told
        connection = await self._open_new(loop, now, deadlines)
        return await _exchange(connection, message, deadlines, now)

    @property
    def idle(self) -> int:
        """Return how many connections wait to be used."""
        return len(self._idle)

    async def aclose(self) -> None:
        """Close every connection; requests under way fail."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_exception(self._closed())
        for connection in list(self._open):
            connection.abort(self._closed())
        while self._open:
            self._all_lost.clear()
            await self._all_lost.wait()

    # Owner of the connections

    def on_free(self, connection: Connection) -> None:
        """Hand a connection to whoever waits longest, or keep it."""
        if self._is_closed or connection not in self._open:
            connection.abort()
            return
        if not self._hand_over(connection):
            self._idle[connection] = connection.now()
            if self._sweeper is None:
                self._sweeper = connection.loop.call_later(self._keep_idle_s, self._sweep)

    def on_lost(self, connection: Connection) -> None:
        """Give its slot to whoever waits longest."""
        self._idle.pop(connection, None)
        if connection in self._open:
            self._open.remove(connection)
            self._pass_slot_on()
        if not self._open:
            self._all_lost.set()

    # Finding a connection

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection, since = self._idle.popitem()
            if connection.is_open and connection.now() - since < self._keep_idle_s:
                return connection
            connection.abort()
        return None

    async def _acquire(
        self, loop: asyncio.AbstractEventLoop, began: float, deadlines: Deadlines
    ) -> Connection:
        while True:
            if self._is_closed:
                raise self._closed()
            if len(self._open) + self._opening < self._size:
                self._opening += 1
                return await self._connect(loop, began, deadlines)
            waiter: asyncio.Future[Connection | None] = loop.create_future()
            self._waiting.append(waiter)
            connection = await self._wait_turn(waiter, began, deadlines)
            if connection is None:
                return await self._connect(loop, began, deadlines)
            if connection.is_open:
                return connection

    async def _open_new(
        self, loop: asyncio.AbstractEventLoop, began: float, deadlines: Deadlines
    ) -> Connection:
        """Open a connection at once, in place of an idle one if there is no slot."""
        if len(self._open) + self._opening >= self._size and self._idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            self._open.discard(oldest)
            oldest.abort()
        return await self._acquire(loop, began, deadlines)

    async def _wait_turn(
        self, waiter: asyncio.Future[Connection | None], began: float, deadlines: Deadlines
    ) -> Connection | None:
        """Wait for a connection, or for the slot of one (None)."""
        try:
            async with asyncio.timeout_at(began + deadlines.connect_s):
                return await waiter
        except BaseException as exc:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            if isinstance(exc, TimeoutError):
                raise _never_asked(
                    f"all {self._size} connections to {self._origin.label} were busy for "
                    f"{deadlines.connect_s:g} s (timeouts.connect)"
                ) from exc
            raise

    async def _connect(
        self, loop: asyncio.AbstractEventLoop, began: float, deadlines: Deadlines
    ) -> Connection:
        """Open a connection in a slot that is taken already."""
        try:
            async with asyncio.timeout_at(began + deadlines.connect_s) as limit:
                connection = await self._dial(loop)
        except OSError as exc:  # TimeoutError and ssl.SSLError are among them
            self._opening -= 1
            self._pass_slot_on()
            if limit.expired():
                raise _never_asked(
                    f"{self._origin.label} could not be connected to within "
                    f"{deadlines.connect_s:g} s (timeouts.connect)"
                ) from exc
            raise self._unreachable(exc) from exc
        except BaseException:
            self._opening -= 1
            self._pass_slot_on()
            raise
        self._opening -= 1
        self._open.add(connection)
        if self._is_closed:
            connection.abort()
            raise self._closed()
        return connection

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> Connection:
        origin = self._origin

        def factory() -> Connection:
            return Connection(self, loop, origin.label)

        if origin.socket is not None:
            _, connection = await loop.create_unix_connection(factory, str(origin.socket))
            return connection
        name = origin.host if self._tls else None
        _, connection = await loop.create_connection(
            factory, origin.host, origin.port, ssl=self._tls, server_hostname=name
        )
        return connection

    # Slots

    def _hand_over(self, connection: Connection | None) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _pass_slot_on(self) -> None:
        if self._waiting and len(self._open) + self._opening < self._size and self._hand_over(None):
            self._opening += 1

    def _give_back(self, connection: Connection | None) -> None:
        if connection is not None:
            self.on_free(connection)
        else:
            self._opening -= 1
            self._pass_slot_on()

    def _sweep(self) -> None:
        """Close what has been idle too long; come back for the rest."""
        self._sweeper = None
        while self._idle:
            connection, since = next(iter(self._idle.items()))
            due = since + self._keep_idle_s
            if due > connection.now():
                self._sweeper = connection.loop.call_at(due, self._sweep)
                return
            del self._idle[connection]
            connection.abort()

    # Errors

    def _unreachable(self, exc: OSError) -> ProviderUnavailable:
        label = self._origin.label
        if isinstance(exc, ssl.SSLCertVerificationError):
            return ProviderUnavailable(
                f"{label} showed a certificate that is not trusted ({exc.verify_message}); "
                "a private authority goes into tls.ca_file"
            )
        why = exc.strerror or type(exc).__name__
        return ProviderUnavailable(f"{label} could not be connected to: {why}")

    def _closed(self) -> ProviderUnavailable:
        return ProviderUnavailable(f"connections to {self._origin.label} are closed")


async def _exchange(
    connection: Connection, message: bytes, deadlines: Deadlines, began: float
) -> Exchange:
    exchange = Exchange(connection, deadlines, began)
    connection.send(message, exchange)
    try:
        await exchange.head()
    except BaseException:
        exchange.abort()
        raise
    return exchange


def _never_asked(message: str) -> ProviderTimeout:
    """Return the timeout of a call that no upstream has seen, and none will bill."""
    error = ProviderTimeout(message)
    error.may_be_billed = False
    return error
