"""The link to Redis, and what is kept there, against a real server that hangs, dies and fills."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cache.backoff import Backoff
from cache.scope import Scope
from cache.stores.redis import RedisLink
from cache.stores.scripts import SCRIPTS
from cache.stores.shared import SharedStore, State
from cache.types import CachedReply, StoreFailed
from tests.support.redis_server import RedisServer

REPLY = CachedReply((b"hello",), False, "large", {"input": 2}, 5.0, "large:served", route="auto")
ONE, TWO = b"1" * 32, b"2" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def linked(server: RedisServer, deadline_s: float = 2.0) -> RedisLink:
    return RedisLink(server.url, SCRIPTS, deadline_s=deadline_s, backoff=Backoff(0.01, 0.05))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("url", ["http://a", "redis://a:b@c:d/0", "redis://a/0?colour=red"])
def test_a_url_that_cannot_be_used_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://user:password@host") as caught:
        RedisLink(url, SCRIPTS)

    assert url not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_a_node_of_a_cluster_is_refused_at_the_start(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path, "--cluster-enabled", "yes") as server,
        pytest.raises(OSError, match="Redis Cluster, which is not supported"),
    ):
        await linked(server).__aenter__()


async def test_a_user_who_may_not_ask_about_the_server_is_served(server: RedisServer) -> None:
    server.say("ACL", "SETUSER", "plain", "on", ">secret", "~*", "&*", "+@all", "-info")
    url = server.url.replace("redis://", "redis://plain:secret@")
    async with RedisLink(url, SCRIPTS, deadline_s=2.0) as link:
        assert await link.call(b"ECHO", b"a") == b"a"


async def test_commands_at_once_each_get_their_own_answer(server: RedisServer) -> None:
    async with linked(server) as link:
        said = await asyncio.gather(*(link.call(b"ECHO", b"%d" % n) for n in range(500)))

    assert said == [b"%d" % n for n in range(500)]


async def test_a_refused_command_leaves_the_others_alone(server: RedisServer) -> None:
    async with linked(server) as link:
        refused, echoed = await asyncio.gather(
            link.call(b"NOSUCH"), link.call(b"ECHO", b"a"), return_exceptions=True
        )

        assert link.is_up
    assert isinstance(refused, StoreFailed)
    assert echoed == b"a"
    assert link.refusals == 1


async def test_a_server_that_hangs_costs_one_deadline_and_then_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked(server, deadline_s=0.02) as link:
        server.hang()
        with caplog.at_level(logging.WARNING):
            together = await asyncio.gather(
                *(link.call(b"PING") for _ in range(50)), return_exceptions=True
            )
        sent = link.calls
        with pytest.raises(StoreFailed, match="left alone for a while: expected an answer"):
            await link.call(b"PING")

        assert all(isinstance(each, StoreFailed) for each in together)
        assert link.calls == sent
        assert link.failures == 1
        assert len([r for r in caplog.records if "out of reach" in r.message]) == 1


async def test_a_server_that_goes_on_is_used_again(server: RedisServer) -> None:
    async with linked(server, deadline_s=0.02) as link:
        server.hang()
        with pytest.raises(StoreFailed):
            await link.call(b"PING")
        server.resume()
        await until(lambda: link.is_up)


async def test_a_server_that_dies_and_comes_back_is_used_again(server: RedisServer) -> None:
    changes: list[str] = []
    link = linked(server)
    link.when_up(lambda: changes.append("up"))
    link.when_down(lambda: changes.append("down"))
    async with link:
        server.kill()
        await until(lambda: not link.is_up)
        server.start()
        await until(lambda: link.is_up)

        assert await link.run("release", (b"lease",), b"token") == 0
    assert changes[:3] == ["up", "down", "up"]


async def test_a_server_that_is_absent_holds_nobody_up(tmp_path: Path) -> None:
    async with linked(RedisServer(tmp_path)) as link:
        assert not link.is_up
        with pytest.raises(StoreFailed, match="left alone for a while"):
            await link.call(b"PING")


async def test_whoever_waits_when_the_server_dies_is_told_at_once(server: RedisServer) -> None:
    async with linked(server, deadline_s=30) as link:
        waiting = [asyncio.ensure_future(link.call(b"BLPOP", b"nothing", b"0")) for _ in range(20)]
        await asyncio.sleep(0)
        server.kill()

        told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in told] == [StoreFailed] * 20


def pings(server: RedisServer) -> int:
    """Return how often the server was asked whether it still stands."""
    told = re.search(rb"cmdstat_ping:calls=(\d+)", server.say("INFO", "commandstats"))
    assert told is not None
    return int(told[1])


async def test_a_quiet_channel_is_asked_and_goes_on(server: RedisServer) -> None:
    heard: list[bytes] = []
    link = linked(server)
    link.quiet_s = 0.02
    link.listen(b"news", heard.append)
    async with link:
        already = pings(server)
        await until(lambda: pings(server) > already + 2)
        server.say("PUBLISH", "news", "hello")
        await until(lambda: heard == [b"hello"])

        assert link.failures == 0


async def test_a_channel_that_no_longer_answers_takes_the_link_down(server: RedisServer) -> None:
    link = linked(server)
    link.quiet_s = 0.02
    link.listen(b"news", lambda _: None)
    async with link:
        server.hang()
        await until(lambda: not link.is_up)
        server.resume()


async def test_a_message_that_cannot_be_dealt_with_ends_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def hear(message: bytes) -> None:
        if message == b"bad":
            raise RuntimeError("expected something else")
        heard.append(message)

    link = linked(server)
    link.listen(b"news", hear)
    async with link:
        server.say("PUBLISH", "news", "bad")
        server.say("PUBLISH", "news", "good")
        await until(lambda: heard == [b"good"])

    assert "could not be dealt with" in caplog.text


async def test_what_was_posted_is_sent_before_the_link_is_closed(server: RedisServer) -> None:
    async with linked(server) as link:
        link.post(b"SET", b"a", b"1")
    assert server.say("GET", "a") == b"$1\r\n1\r\n"


async def test_a_full_server_keeps_nothing_new_and_is_still_read(server: RedisServer) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        assert await store.put(ONE, REPLY, 60)
        server.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.say("CONFIG", "SET", "maxmemory", "1")

        with pytest.raises(StoreFailed, match="OOM"):
            await store.put(TWO, REPLY, 60)
        assert (await store.claim(TWO, b"p.1", 5, skip=False)).state is State.FULL
        assert await store.get(ONE) == REPLY
        assert link.is_up


@pytest.mark.parametrize("what", ["garbage", "of another key", "of a later version", "cut short"])
async def test_what_is_no_entry_of_this_key_is_dropped(server: RedisServer, what: str) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        await store.put(ONE, REPLY, 60)
        entry = await link.call(b"GET", b"frugal:e:" + b"31" * 8 + b":" + b"31" * 24)
        assert isinstance(entry, bytes)
        foreign = {
            "garbage": b"\x00\xffgarbage",
            "of another key": entry,
            "of a later version": b"\x09" + entry[1:],
            "cut short": entry[:-1],
        }[what]
        name = b"frugal:e:" + b"32" * 8 + b":" + b"32" * 24
        await link.call(b"SET", name, foreign)
        claim = await store.claim(TWO, b"p.1", 5, skip=False)

        assert claim.state is State.OURS
        assert store.corrupt == 1
        assert await link.call(b"EXISTS", name) == 0


async def test_one_at_a_time_holds_a_lease(server: RedisServer) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        first = await store.claim(ONE, b"p.1", 5, skip=False)
        second = await store.claim(ONE, b"q.1", 5, skip=False)

        assert (first.state, second.state) == (State.OURS, State.THEIRS)
        assert second.token == first.token
        store.release(ONE, b"q.1:0")  # not its own
        assert await store.holder(ONE) == first.token
        store.release(ONE, first.token)
        assert await store.holder(ONE) is None


async def test_a_leader_that_was_replaced_can_no_longer_write(server: RedisServer) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        late = await store.claim(ONE, b"p.1", 5, skip=False)
        store.release(ONE, late.token)  # as if it had lapsed
        now = await store.claim(ONE, b"q.1", 5, skip=False)

        assert not await store.put(ONE, REPLY, 60, token=late.token)
        assert await store.get(ONE) is None
        assert await store.put(ONE, REPLY, 60, token=now.token)
        assert await store.holder(ONE) is None


async def test_a_lease_that_was_lost_is_taken_again_unless_another_has_it(
    server: RedisServer,
) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        ours = await store.claim(ONE, b"p.1", 5, skip=False)
        server.flush()
        await store.renew({ONE: ours.token}, 5)
        assert await store.holder(ONE) == ours.token

        server.flush()
        theirs = await store.claim(ONE, b"q.1", 5, skip=False)
        await store.renew({ONE: ours.token}, 5)

        assert await store.holder(ONE) == theirs.token


async def test_epochs_grow_even_when_everything_was_lost(server: RedisServer) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        first = await store.invalidate(Scope(route="auto"))
        second = await store.invalidate(Scope(route="auto"))
        server.flush()
        third = await store.invalidate(Scope(route="other"))

        assert first < second
        assert first < third
        assert await store.epochs() == (third, {Scope(route="other").dump(): third})


async def test_who_finds_no_room_for_an_answer_gives_the_lease_back_all_the_same(
    server: RedisServer,
) -> None:
    async with linked(server) as link:
        store = SharedStore(link)
        claim = await store.claim(ONE, b"p.1", 30, skip=False)
        server.say("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFailed, match="refused"):
            await store.put(ONE, REPLY, 60, token=claim.token)

        assert await store.holder(ONE) is None
