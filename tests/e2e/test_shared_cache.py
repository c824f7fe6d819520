"""Several gateways that share a cache through Redis: one pays, all answer, whatever Redis does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from gateway.clock import Clock
from tests.support.clients import RawClient
from tests.support.gateway_app import Gateway, asking, events_of, frugal_serve, serving, text_of
from tests.support.policies import one_model
from tests.support.redis_server import RedisServer, with_redis
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("one two three four", tokens=(10, 4))


class Slow:
    """A model that stops in the middle of each stream, and before each whole answer."""

    def __init__(self) -> None:
        self.hold = Hold()

    def __call__(self, received):
        if received.json["stream"]:
            return [*ANSWER.until(2), self.hold, *ANSWER.since(2)]
        return [self.hold, *ANSWER(received)]


@asynccontextmanager
async def gateways(
    count: int, url: str, server: RedisServer, folder: Path, **cache: object
) -> AsyncIterator[list[Gateway]]:
    kept = {"exact": {"ttl": "1h", **cache}}
    text = json.dumps(with_redis(json.loads(one_model(url, cache=kept)), server))
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            (each := folder / f"gateway-{number}").mkdir()
            found.append(await stack.enter_async_context(serving(text, each)))
        yield found


@pytest.fixture
def server(tmp_path: Path):
    with RedisServer(tmp_path) as server:
        yield server


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.01)


async def test_an_answer_paid_for_in_one_gateway_is_a_hit_in_the_other(tmp_path, server):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        gateways(2, upstream.url, server, tmp_path) as (one, two),
    ):
        paid = await one.chat()
        hit = await two.chat()
        streamed = await two.chat(stream=True, stream_options={"include_usage": True})

    assert len(upstream.requests) == 1
    assert hit.content == paid.content
    assert hit.headers["x-cache"] == "exact"
    assert hit.headers["x-frugal-model"] == "large"
    assert text_of(events_of(streamed)) == ANSWER.text
    assert events_of(streamed)[-2]["usage"] == ANSWER.usage
    row = two.books.entries()[0]
    assert (row["cost_nano_usd"], row["saved_nano_usd"]) == (0, 18_000)


async def test_a_client_that_leaves_while_redis_is_asked_is_abandoned(tmp_path, server):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        gateways(1, upstream.url, server, tmp_path) as (gateway,),
        RawClient(gateway.port) as client,
    ):
        server.hang()
        await client.post(asking())
        client.leave()
        (row,) = await gateway.books.until(1)
        server.resume()
        after = await gateway.chat()

    assert (row["state"], row["cost_nano_usd"]) == ("abandoned", 0)
    assert after.headers["x-cache"] == "miss"
    assert len(upstream.requests) == 1


async def test_those_who_wait_behind_one_that_asks_redis_are_served_with_it(tmp_path, server):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        gateways(2, upstream.url, server, tmp_path) as (one, two),
    ):
        await one.chat()
        answers = await asyncio.gather(*(two.chat(stream=n % 3 == 2) for n in range(12)))

    assert len(upstream.requests) == 1
    assert {answer.headers["x-cache"] for answer in answers} == {"exact"}


@pytest.mark.parametrize("stream", [False, True])
async def test_equal_requests_at_several_gateways_are_paid_for_once(tmp_path, server, stream):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        gateways(3, upstream.url, server, tmp_path) as all_three,
    ):
        asked = [
            asyncio.create_task(gateway.chat(stream=stream))
            for gateway in all_three
            for _ in range(10)
        ]
        await model.hold.reached.wait()
        for gateway in all_three:
            await gateway.until_under_way(10)
        model.hold.release()
        answers = await asyncio.gather(*asked)
        rows = [row for gateway in all_three for row in gateway.books.entries()]

    assert len(upstream.requests) == 1
    assert len({answer.content for answer in answers}) == 1
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["exact"] * 29 + ["miss"]
    assert sum(row["cost_nano_usd"] for row in rows) == 18_000
    assert sum(row["saved_nano_usd"] for row in rows) == 29 * 18_000


async def test_a_follower_elsewhere_streams_along_and_outlasts_the_leaders_client(tmp_path, server):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        gateways(2, upstream.url, server, tmp_path) as (one, two),
        RawClient(one.port) as leader,
        RawClient(two.port) as follower,
    ):
        await leader.post(asking(stream=True))
        await leader.until(b'" two"')
        await follower.post(asking(stream=True))
        early = await follower.until(b'" two"')
        leader.leave()
        await one.until_gone(1)
        model.hold.release()
        late = await follower.until(b"[DONE]")

    assert b"x-cache: exact" in early
    assert b'"one"' in early
    assert b'" four"' in late
    assert len(upstream.requests) == 1


async def test_a_leader_that_fails_is_replaced_from_another_gateway(tmp_path, server):
    hold = Hold()
    calls = iter([[hold, b"nonsense"], None])

    def model(received):
        return next(calls, None) or ANSWER(received)

    async with (
        ScriptedUpstream(model) as upstream,
        gateways(2, upstream.url, server, tmp_path) as (one, two),
    ):
        first = asyncio.create_task(one.chat())
        await hold.reached.wait()
        second = asyncio.create_task(two.chat())
        await two.until_under_way(1)
        hold.release()
        failed, answered = await asyncio.gather(first, second)

    assert failed.status_code == 502
    assert answered.json()["choices"] == ANSWER.body()["choices"]
    assert len(upstream.requests) == 2


async def test_tenants_share_nothing_through_redis(tmp_path, server):
    keys = [{"name": n, "key": f"sk-{n}-0123456789abcdef", "tenant": n} for n in ("acme", "other")]
    async with ScriptedUpstream(ANSWER) as upstream:
        text = with_redis(json.loads(one_model(upstream.url)), server)
        text["access"] = {"keys": keys}
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with (
            serving(json.dumps(text), tmp_path / "a") as one,
            serving(json.dumps(text), tmp_path / "b") as two,
        ):
            ours = {"authorization": "Bearer sk-acme-0123456789abcdef"}
            theirs = {"authorization": "Bearer sk-other-0123456789abcdef"}
            states = [
                (await gateway.chat(headers=headers)).headers["x-cache"]
                for gateway, headers in ((one, ours), (two, theirs), (two, ours), (one, theirs))
            ]

    assert states == ["miss", "miss", "exact", "exact"]
    assert len(upstream.requests) == 2


class Trouble:
    """What befalls Redis, in turns."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    async def hang(self) -> None:
        self._server.hang()
        await asyncio.sleep(0)
        self._server.resume()

    async def die(self) -> None:
        self._server.kill()
        self._server.start()

    async def forget(self) -> None:
        self._server.flush()

    async def stay_away(self) -> None:
        self._server.kill()

    async def fill_up(self) -> None:
        self._server.say("CONFIG", "SET", "maxmemory", "1")


@pytest.mark.parametrize("trouble", ["hang", "die", "forget", "stay_away", "fill_up"])
async def test_no_request_fails_whatever_befalls_redis(tmp_path, server, trouble):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        gateways(2, upstream.url, server, tmp_path) as both,
    ):
        befalls = getattr(Trouble(server), trouble)
        answers: list[httpx.Response] = []
        for turn in range(4):
            asked = [
                asyncio.create_task(gateway.chat(f"{turn} {number % 5}", stream=bool(number % 2)))
                for number in range(10)
                for gateway in both
            ]
            await befalls()
            answers += await asyncio.gather(*asked)

    assert [answer.status_code for answer in answers] == [200] * 80
    for answer in answers:
        is_stream = answer.headers["content-type"].startswith("text/event-stream")
        text = (
            text_of(events_of(answer))
            if is_stream
            else answer.json()["choices"][0]["message"]["content"]
        )
        assert text == ANSWER.text


async def test_a_gateway_starts_and_serves_without_its_redis(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        gateways(1, upstream.url, RedisServer(tmp_path), tmp_path) as (gateway,),
    ):
        states = [(await gateway.chat()).headers["x-cache"] for _ in range(2)]

    assert states == ["miss", "exact"]


async def test_workers_of_one_command_share_their_answers(tmp_path, server):
    async with ScriptedUpstream(ANSWER) as upstream:
        text = json.dumps(with_redis(json.loads(one_model(upstream.url)), server))
        with frugal_serve(text, tmp_path, "--workers", "2") as served:
            for number in range(12):  # connections of their own, so that both are asked
                async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
                    answer = await client.post("/v1/chat/completions", json=asking(), timeout=20)
                    assert answer.headers["x-cache"] == ("exact" if number else "miss")
            async with httpx.AsyncClient(base_url=served.admin_url, trust_env=False) as admin:
                answer = await admin.post("/admin/cache/invalidate", json={"everything": True})
                done = answer.json()

    assert len(upstream.requests) == 1
    assert done["entries"] == 1


# Freshness


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_stale_answer_is_served_and_renewed_behind_the_clients_back(tmp_path):
    time = Time()
    kept = {"exact": {"ttl": "1h", "stale": "5m"}}
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(
            one_model(upstream.url, cache=kept), tmp_path, clock=Clock(wall=time, tick=time)
        ) as gateway,
    ):
        await gateway.chat()
        time.now += 3660
        stale = await gateway.chat()
        await until(lambda: len(upstream.requests) == 2)
        rows = await gateway.books.until(3)
        time.now += 60
        fresh = await gateway.chat()
        time.now += 4000
        gone = await gateway.chat()

    assert (stale.headers["x-cache"], stale.headers["age"]) == ("exact", "3660")
    assert (fresh.headers["x-cache"], fresh.headers["age"]) == ("exact", "60")
    assert gone.headers["x-cache"] == "miss"
    assert sorted(row["cost_nano_usd"] for row in rows) == [0, 18_000, 18_000]
    assert len({row["request_id"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("control", "age", "state"),
    [
        ("max-age=100", 100, "exact"),
        ("max-age=100", 101, "miss"),
        ("max-age=0", 1, "miss"),
        ("max-age=4000", 3601, "miss"),
        ("max-stale=100", 3700, "miss"),
        ("max-stale=100", 3699, "exact"),
        ("max-stale", 3800, "exact"),
        ("max-stale=0", 3601, "miss"),
        ("", 3700, "exact"),
    ],
)
async def test_a_request_says_how_old_its_answer_may_be(tmp_path, control, age, state):
    time = Time()
    kept = {"exact": {"ttl": "1h", "stale": "5m"}}
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(
            one_model(upstream.url, cache=kept), tmp_path, clock=Clock(wall=time, tick=time)
        ) as gateway,
    ):
        await gateway.chat()
        time.now += age
        answer = await gateway.chat(headers={"cache-control": control} if control else None)

    assert answer.headers["x-cache"] == state


@pytest.mark.parametrize(("age", "state"), [(59, "exact"), (61, "miss")])
async def test_a_request_may_have_its_answer_kept_for_less(tmp_path, age, state):
    time = Time()
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url), tmp_path, clock=Clock(wall=time, tick=time)) as gateway,
    ):
        await gateway.chat(frugal={"cache_ttl": 60})
        time.now += age
        answer = await gateway.chat()

    assert answer.headers["x-cache"] == state


async def test_a_renewal_that_fails_leaves_the_stale_answer(tmp_path):
    time = Time()
    kept = {"exact": {"ttl": "1h", "stale": "5m"}}
    is_down = False

    def model(received):
        return [b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"] if is_down else ANSWER(received)

    async with (
        ScriptedUpstream(model) as upstream,
        serving(
            one_model(upstream.url, cache=kept), tmp_path, clock=Clock(wall=time, tick=time)
        ) as gateway,
    ):
        await gateway.chat()
        time.now += 3660
        is_down = True
        await gateway.chat()
        rows = await gateway.books.until(3)
        again = await gateway.chat()

    assert again.headers["x-cache"] == "exact"
    assert sorted(row["state"] for row in rows) == ["failed", "settled", "settled"]
