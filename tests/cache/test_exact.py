from __future__ import annotations

import asyncio
import logging

import pytest

from cache.exact import ExactCache, ExactStats, Seat
from cache.fingerprint import fingerprint
from cache.freshness import Freshness
from cache.scope import Scope, Tally
from cache.stores.memory import MemoryStore
from cache.types import CachedReply, LeaderFailed, StoreFailed

KEY = fingerprint("acme", "auto", "1", {"messages": []})


def reply(*parts: bytes) -> CachedReply:
    return CachedReply(parts, len(parts) > 1, "large", {"output": 2}, 5.0, "large:served")


def taken(cache: ExactCache[bytes], key: bytes = KEY, max_entry: int = 10_000) -> Seat[bytes]:
    return cache.seat(key, Freshness(60), max_entry=max_entry)


def leave(seat: Seat[bytes], error: BaseException) -> None:
    seat.__exit__(type(error), error, None)


@pytest.fixture
def cache() -> ExactCache[bytes]:
    return ExactCache(MemoryStore(), size_of=len)


def test_what_a_leader_keeps_is_a_hit_for_the_next(cache: ExactCache[bytes]) -> None:
    with taken(cache) as seat:
        assert seat.hit is None
        assert seat.is_leader
        seat.publish(b"a")
        seat.keep(reply(b"a"))

    with taken(cache) as seat:
        assert seat.hit == reply(b"a")
        assert not seat.is_leader
        assert not seat.is_follower
        assert not seat.has_followers


def test_a_hit_is_known_before_the_seat_is_entered(cache: ExactCache[bytes]) -> None:
    with taken(cache) as seat:
        seat.keep(reply(b"a"))

    assert taken(cache).hit == reply(b"a")


def test_an_answer_kept_between_lookup_and_entering_is_found(cache: ExactCache[bytes]) -> None:
    waiting = taken(cache)
    with taken(cache) as seat:
        seat.keep(reply(b"a"))
    assert waiting.hit is None

    with waiting:
        assert waiting.hit == reply(b"a")


def test_an_answer_that_is_not_kept_is_not_stored(cache: ExactCache[bytes]) -> None:
    with taken(cache) as seat:
        seat.publish(b"a")

    assert taken(cache).hit is None
    assert cache.under_way == 0


def test_an_answer_cut_short_is_not_stored(cache: ExactCache[bytes]) -> None:
    leader = taken(cache).__enter__()
    leader.publish(b"a")
    leave(leader, ConnectionError())

    assert taken(cache).hit is None
    assert cache.under_way == 0


def test_a_seat_that_is_never_entered_holds_nobody_up(cache: ExactCache[bytes]) -> None:
    taken(cache)

    with taken(cache) as seat:
        assert seat.is_leader


def test_tenants_share_nothing(cache: ExactCache[bytes]) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    ours, theirs = (fingerprint(tenant, "auto", "1", body) for tenant in ("acme", "other"))
    with taken(cache, ours) as seat, taken(cache, theirs) as other:
        assert seat.is_leader
        assert other.is_leader
        seat.publish(b"secret")
        seat.keep(reply(b"secret"))

        assert taken(cache, theirs).hit is None


async def test_followers_get_the_answer_as_it_grows_and_count_once(
    cache: ExactCache[bytes],
) -> None:
    with taken(cache) as leader, taken(cache) as follower:
        assert follower.is_follower
        assert leader.has_followers
        leader.publish(b"a")
        pieces = follower.follow()
        assert await anext(pieces) == b"a"
        leader.publish(b"b")
        leader.keep(reply(b"a", b"b"))

        assert [piece async for piece in pieces] == [b"b"]
        assert not follower.was_promoted
    with taken(cache):
        pass
    assert cache.stats() == ExactStats(
        hits=1, led=1, followed=1, kept=1, over_quota=0, store_errors=0
    )


async def test_a_follower_takes_over_from_a_leader_that_failed(cache: ExactCache[bytes]) -> None:
    leader = taken(cache).__enter__()
    with taken(cache) as follower:
        leave(leader, ConnectionError())

        assert [piece async for piece in follower.follow()] == []
        assert follower.was_promoted
        assert follower.is_leader
        follower.publish(b"a")
        follower.keep(reply(b"a"))
    assert taken(cache).hit == reply(b"a")


async def test_a_follower_amid_the_answer_learns_what_the_leader_failed_of(
    cache: ExactCache[bytes],
) -> None:
    leader = taken(cache).__enter__()
    with taken(cache) as follower:
        pieces = follower.follow()
        leader.publish(b"a")
        await anext(pieces)
        leave(leader, ConnectionError("reset"))

        with pytest.raises(LeaderFailed, match="failed: reset"):
            await anext(pieces)
    assert taken(cache).hit is None


async def test_one_that_needs_the_whole_answer_leads_after_a_failure_amid_it(
    cache: ExactCache[bytes],
) -> None:
    leader = taken(cache).__enter__()
    with taken(cache) as follower:
        pieces = asyncio.ensure_future(anext(follower.follow(whole=True), None))
        await asyncio.sleep(0)
        leader.publish(b"a")
        await asyncio.sleep(0)
        leave(leader, ConnectionError("reset"))

        assert await pieces is None
        assert follower.was_promoted


def test_a_reply_larger_than_an_entry_may_be_is_not_kept(cache: ExactCache[bytes]) -> None:
    with taken(cache, max_entry=1000) as seat:
        seat.publish(b"a")
        seat.keep(reply(bytes(2000)))

    assert taken(cache).hit is None


def test_an_answer_that_outgrew_its_room_is_not_kept_and_not_joined(
    cache: ExactCache[bytes],
) -> None:
    with taken(cache, max_entry=5000) as seat:
        seat.publish(bytes(6000))
        with taken(cache, max_entry=5000) as other:
            assert other.is_leader
        seat.keep(reply(b"short"))

    assert taken(cache).hit is None


def test_keeping_ends_the_flight_even_if_the_leader_fails_afterwards(
    cache: ExactCache[bytes],
) -> None:
    leader = taken(cache).__enter__()
    leader.publish(b"a")
    leader.keep(reply(b"a"))
    assert cache.under_way == 0
    leave(leader, asyncio.CancelledError())

    assert taken(cache).hit == reply(b"a")


def test_only_a_leader_keeps(cache: ExactCache[bytes]) -> None:
    with (
        taken(cache),
        taken(cache) as follower,
        pytest.raises(RuntimeError, match="only the leader"),
    ):
        follower.keep(reply(b"a"))
    with pytest.raises(RuntimeError, match="expected a seat that was entered"):
        taken(cache).publish(b"a")


def test_a_seat_is_entered_once(cache: ExactCache[bytes]) -> None:
    with taken(cache) as seat, pytest.raises(RuntimeError, match="entered once"):
        seat.__enter__()


def test_dropping_and_forgetting_remove_entries(cache: ExactCache[bytes]) -> None:
    other = fingerprint("other", "auto", "1", {})
    for key in (KEY, other):
        with taken(cache, key) as seat:
            seat.keep(reply(b"a"))

    assert cache.forget(Scope(tenant="acme")).entries == 1
    assert cache.forget(Scope(tenant="acme")).entries == 0
    assert cache.drop(other)
    assert not cache.drop(other)
    assert taken(cache, other).hit is None


class LostStore:
    """A store out of reach, as a shared one can be."""

    def get(self, key: bytes) -> CachedReply | None:
        raise StoreFailed("expected an answer within 20 ms, found none")

    def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        raise StoreFailed("expected an answer within 20 ms, found none")

    def drop(self, key: bytes) -> bool:
        raise StoreFailed("expected an answer within 20 ms, found none")

    def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        raise StoreFailed("expected an answer within 20 ms, found none")


async def test_a_lost_store_costs_hits_but_no_answers(caplog: pytest.LogCaptureFixture) -> None:
    cache: ExactCache[bytes] = ExactCache(LostStore(), size_of=len)
    with caplog.at_level(logging.WARNING), taken(cache) as leader, taken(cache) as follower:
        leader.publish(b"a")
        leader.keep(reply(b"a"))

        assert [piece async for piece in follower.follow()] == [b"a"]
    assert not cache.drop(KEY)
    with pytest.raises(StoreFailed):
        cache.forget(Scope(tenant="acme"))

    assert cache.stats().store_errors == 4
    assert cache.stats().kept == 0
    assert len(caplog.records) == 1


def test_the_event_about_usage_goes_to_those_who_ask() -> None:
    whole = CachedReply((b"a", b"b"), True, "m", {}, 0.0, "m:served", usage_event=b"u")

    assert whole.events(include_usage=True) == (b"a", b"b", b"u")
    assert whole.events(include_usage=False) == (b"a", b"b")
    assert reply(b"a").events(include_usage=True) == (b"a",)
