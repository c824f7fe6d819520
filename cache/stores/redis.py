"""The link to Redis: one connection for commands, one for news, a deadline, a breaker.

Commands of all requests share a connection and are answered in order, so one
late answer means that all are late. The first to miss its deadline takes the
link down: everybody who waits is told at once, nobody else is made to wait, and
a task of its own tries again, less and less often, until Redis answers in time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import RedisError, ResponseError

from cache.backoff import Backoff
from cache.link import Hear, Reply
from cache.stores.replies import Replies
from cache.types import StoreFailed

_CONNECT_S = 1.0
_LAST_LOOK_S = 0.001
_NO_CLUSTER = (
    "storage.redis: expected one Redis server, or the primary of several, found a node of a Redis "
    "Cluster, which is not supported; name a server with cluster-enabled no"
)
_TURNS = 3  # of the event loop, from bytes that have arrived to whom they are for
_Asked = tuple[float, asyncio.Future[Reply] | None]
"""When to look for an answer, and who waits for it, if anybody does."""
_log = logging.getLogger(__name__)


class RedisLink:
    """A link to the server at `url` (redis://, rediss:// or unix://).

    An async context manager: entering waits for the first attempt to connect,
    whatever comes of it; where a node of a Redis Cluster answers it raises OSError,
    since keys that belong together would lie apart there. `scripts` are Lua, by name.
    Raises ValueError for a URL that cannot be used.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, str],
        *,
        deadline_s: float = 0.02,
        backoff: Backoff | None = None,
    ) -> None:
        self.failures = self.refusals = self.calls = 0
        self.is_up = False
        self.trouble = "not connected yet"
        self.quiet_s = 15.0
        # The name of the client shows up in CLIENT LIST; no timeouts, since ours is sharper.
        try:
            self._pool = ConnectionPool.from_url(
                url, protocol=2, socket_timeout=None, client_name="frugal-gateway",
                socket_connect_timeout=_CONNECT_S,
            )  # fmt: skip
            self._connection()
        except (TypeError, ValueError):
            # Not chained: what is wrong with a URL is told in terms of its parts, the secret too.
            raise ValueError(
                "expected redis://user:password@host:6379/0 with settings that the client knows, "
                "found another URL"
            ) from None
        self._scripts = dict(scripts)
        digests = {name: hashlib.sha1(text.encode()) for name, text in scripts.items()}
        self._digests = {name: digest.hexdigest().encode() for name, digest in digests.items()}
        self._deadline_s = deadline_s
        self._look_after_s = max(0.0, deadline_s - 2 * _LAST_LOOK_S)
        self._backoff = backoff or Backoff()
        self._waiting: deque[_Asked] = deque()
        self._out: list[bytes] = []
        self._replies: Replies | None = None
        self._flushes = False
        self._fault: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._channels: dict[bytes, Hear] = {}
        self._when_up: list[Callable[[], None]] = []
        self._when_down: list[Callable[[], None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._first_try = asyncio.Event()
        self._is_cluster = False

    async def __aenter__(self) -> RedisLink:
        self._keeper = asyncio.create_task(self._keep_connected())
        await self._first_try.wait()
        if self._is_cluster:
            await self.__aexit__(None, None, None)
            raise OSError(_NO_CLUSTER)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._keeper is not None
        if self._waiting and self.is_up:
            # What is answered after them has been done after them.
            await asyncio.wait((self._send((b"PING",)),), timeout=1)
        self._keeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeper

    def listen(self, channel: bytes, hear: Hear) -> None:
        """Hear a channel; to be called before the link is entered."""
        self._channels[channel] = hear

    def when_up(self, react: Callable[[], None]) -> None:
        """Call back each time the link has come up."""
        self._when_up.append(react)

    def when_down(self, react: Callable[[], None]) -> None:
        """Call back each time the link has gone down."""
        self._when_down.append(react)

    def call(self, *command: bytes) -> asyncio.Future[Reply]:
        """Send a command and return the answer. Raises StoreFailed."""
        return self._send(command)

    def post(self, *command: bytes) -> None:
        """Send a command without waiting; what becomes of it is counted, no more."""
        if self.is_up:
            self._ask(command, None)
            self._flush_soon()

    def run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> asyncio.Future[Reply]:
        """Run a script. Raises StoreFailed."""
        return self._send(self._command(script, keys, arguments))

    def post_run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> None:
        """Run a script without waiting."""
        self.post(*self._command(script, keys, arguments))

    def _command(
        self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes]
    ) -> tuple[bytes, ...]:
        return (b"EVALSHA", self._digests[script], b"%d" % len(keys), *keys, *arguments)

    def _send(self, command: Sequence[bytes]) -> asyncio.Future[Reply]:
        if not self.is_up:
            raise StoreFailed(f"Redis is left alone for a while: {self.trouble}")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._ask(command, future)
        self._flush_soon()
        return future

    def _ask(self, command: Sequence[bytes], future: asyncio.Future[Reply] | None) -> None:
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + self._look_after_s, future))
        self._out.append(_packed(command))
        self.calls += 1
        if self._timer is None:
            self._timer = loop.call_later(self._look_after_s, self._look_at_the_time)

    def _flush_soon(self) -> None:
        """Send what has gathered, all of a turn of the loop at once."""
        if not self._flushes:
            self._flushes = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes = False
        if self._replies is not None and self._out:
            sent, self._out = b"".join(self._out), []
            self._replies.write(sent)

    def _look_at_the_time(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        if not self._waiting:
            return
        due = self._waiting[0][0]
        if due > loop.time():
            self._timer = loop.call_at(due, self._look_at_the_time)
        else:
            # It may be this process that was late. What has arrived meanwhile is read first.
            self._timer = loop.call_later(_LAST_LOOK_S, self._judge, self._waiting[0], _TURNS)

    def _judge(self, oldest: _Asked, turns: int) -> None:
        self._timer = None
        if not self._waiting or self._waiting[0] is not oldest:
            self._look_at_the_time()
        elif turns:
            asyncio.get_running_loop().call_soon(self._judge, oldest, turns - 1)
        else:
            milliseconds = self._deadline_s * 1000
            self._fail(StoreFailed(f"expected an answer of Redis within {milliseconds:g} ms"))

    def _fail(self, error: Exception) -> None:
        """Take the link down and tell everybody who waits."""
        if self.is_up:
            self.is_up = False
            self.failures += 1
            self.trouble = str(error)
            _log.warning("Redis is out of reach: %s", error)
            for react in self._when_down:
                react()
        for _, future in self._waiting:
            if future is not None and not future.done():
                future.set_exception(StoreFailed(f"Redis is out of reach: {error}"))
        self._waiting.clear()
        self._out.clear()
        if self._fault is not None and not self._fault.done():
            self._fault.set_result(None)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._serve_connections()
            except (RedisError, OSError, TimeoutError, ValueError) as exc:
                trouble = str(exc) or f"no answer within {_CONNECT_S:g} s"
                if self.trouble != trouble:
                    _log.warning("Redis cannot be used: %s", trouble)
                self.trouble = trouble
            except Exception:
                # A link that nobody keeps would never come back.
                _log.exception("the link to Redis failed; it is tried again")
            self._first_try.set()
            await asyncio.sleep(self._backoff.wait_after(loop.time() - began))

    async def _serve_connections(self) -> None:
        """Connect and serve until something fails."""
        commands, news = self._connection(), self._connection()
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._greet(commands)
                await self._subscribe(news)
            self._fault = asyncio.get_running_loop().create_future()
            self._replies = Replies(_transport_of(commands), self._take, self._fail)
            self.is_up = True
            _log.info("Redis is in reach")
            tasks = [asyncio.create_task(self._hear(news))]
            for react in self._when_up:
                react()
            self._first_try.set()
            await self._fault
        finally:
            self.is_up = False
            self._fail(StoreFailed("the link was closed"))
            if self._replies is not None:
                self._replies.let_go()
                self._replies = None
            for task in tasks:
                task.cancel()
            for connection in (commands, news):
                await connection.disconnect(nowait=True)
            # Last, since it is here that we may be cancelled ourselves.
            await asyncio.gather(*tasks, return_exceptions=True)

    def _connection(self) -> AbstractConnection:
        return cast(AbstractConnection, self._pool.make_connection())  # type: ignore[no-untyped-call]

    async def _greet(self, connection: AbstractConnection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        for text in self._scripts.values():
            await connection.send_command("SCRIPT LOAD", text)
            await connection.read_response()
        await connection.send_command("INFO", "cluster")
        try:
            told: Any = await connection.read_response()
        except ResponseError:
            return  # a user who may not ask; commands will be refused, should it be a cluster
        self._is_cluster = b"cluster_enabled:1" in told
        if self._is_cluster:
            raise RedisError(_NO_CLUSTER)

    async def _subscribe(self, connection: AbstractConnection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        for channel in self._channels:
            await connection.send_command("SUBSCRIBE", channel)
            await connection.read_response()

    def _take(self, found: Any) -> None:
        """Give whoever has waited longest the answer."""
        if not self._waiting:
            return  # the link has gone down meanwhile
        _, future = self._waiting.popleft()
        if isinstance(found, hiredis.HiredisError):
            self.refusals += 1
            found = StoreFailed(f"Redis refused: {found}")
        if future is None or future.done():
            return
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(cast(Reply, found))

    async def _hear(self, connection: AbstractConnection) -> None:
        """Pass messages on; a connection that is quiet is asked whether it still stands."""
        has_asked = False
        while True:
            try:
                found: Any = await connection.read_response(True, self.quiet_s)
                if found is None and not has_asked:
                    await connection.send_command("PING", check_health=False)
            except (RedisError, OSError) as exc:
                self._fail(exc)
                return
            if found is None and has_asked:
                self._fail(StoreFailed(f"expected news of Redis within {self.quiet_s:g} s"))
                return
            has_asked = found is None
            if found is not None and found[0] == b"message":
                self._tell(found[1], found[2])

    def _tell(self, channel: bytes, message: bytes) -> None:
        try:
            self._channels[channel](message)
        except Exception:
            # One message that cannot be dealt with must not end all others.
            _log.exception("a message over Redis could not be dealt with")


def _packed(command: Sequence[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    parts += [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
    return b"".join(parts)


def _transport_of(connection: AbstractConnection) -> asyncio.Transport:
    """Return what a connection writes to: the client has no word for it."""
    writer: asyncio.StreamWriter = connection._writer  # type: ignore[assignment]
    return cast(asyncio.Transport, writer.transport)
