"""Equal requests at the same time, over the wire: one is paid for, all are answered."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cache.types import MOST_BEHIND
from tests.support.clients import RawClient, StandstillClient
from tests.support.gateway_app import asking, events_of, serving, text_of
from tests.support.policies import one_model
from tests.support.replies import Says, refusal
from tests.support.scripted_upstream import RST, Hold, ScriptedUpstream

ANSWER = Says("one two three four", tokens=(10, 4))


class Slow:
    """A model that stops in the middle of each stream, and before each whole answer."""

    def __init__(self) -> None:
        self.hold = Hold()

    def __call__(self, received):
        if received.json["stream"]:
            return [*ANSWER.until(2), self.hold, *ANSWER.since(2)]
        return [self.hold, *ANSWER(received)]


@pytest.mark.parametrize("stream", [False, True])
async def test_fifty_equal_requests_are_paid_for_once(tmp_path, stream):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        asked = [asyncio.create_task(gateway.chat(stream=stream)) for _ in range(50)]
        await model.hold.reached.wait()
        await gateway.until_under_way(50)
        model.hold.release()
        answers = await asyncio.gather(*asked)

    assert len(upstream.requests) == 1
    assert len({answer.content for answer in answers}) == 1
    if stream:
        assert text_of(events_of(answers[0])) == ANSWER.text
        assert answers[0].text.endswith("data: [DONE]\n\n")
    else:
        assert answers[0].json() == ANSWER.body()
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["exact"] * 49 + ["miss"]
    rows = gateway.books.entries()
    assert len(rows) == 50
    assert sorted(row["cost_nano_usd"] for row in rows) == [0] * 49 + [18_000]
    assert sum(row["saved_nano_usd"] for row in rows) == 49 * 18_000


async def test_a_follower_gets_what_was_said_before_it_came_and_then_goes_on_live(tmp_path):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        RawClient(gateway.port) as leader,
        RawClient(gateway.port) as follower,
    ):
        await leader.post(asking(stream=True))
        await leader.until(b'" two"')
        await follower.post(asking(stream=True))
        early = await follower.until(b'" two"')
        model.hold.release()
        late = await follower.until(b"[DONE]")

    assert b"x-cache: exact" in early
    assert b'"one"' in early
    assert b'" four"' in late
    assert len(upstream.requests) == 1


async def test_a_follower_may_ask_in_the_other_mode(tmp_path):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        leader = asyncio.create_task(gateway.chat(stream=True))
        await model.hold.reached.wait()
        follower = asyncio.create_task(gateway.chat(stream=False))
        await gateway.until_under_way(2)
        model.hold.release()
        whole, _ = await asyncio.gather(follower, leader)

    assert len(upstream.requests) == 1
    assert whole.json()["choices"] == ANSWER.body()["choices"]
    assert whole.json()["usage"] == ANSWER.usage
    assert whole.headers["x-cache"] == "exact"


async def test_a_leader_whose_client_leaves_still_serves_its_followers(tmp_path):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        RawClient(gateway.port) as leader,
    ):
        await leader.post(asking(stream=True))
        await leader.until(b'" two"')
        follower = asyncio.create_task(gateway.chat(stream=True))
        await gateway.until_under_way(2)
        leader.leave()
        await gateway.until_gone(1)
        model.hold.release()
        answer = await follower
        rows = await gateway.books.until(2)

    assert text_of(events_of(answer)) == ANSWER.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert len(upstream.requests) == 1
    assert upstream.gone == 0
    assert sum(row["cost_nano_usd"] for row in rows) == 18_000


async def test_an_answer_that_nobody_is_left_to_read_is_cancelled(tmp_path):
    model = Slow()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        RawClient(gateway.port) as leader,
        RawClient(gateway.port) as follower,
    ):
        await leader.post(asking(stream=True))
        await leader.until(b'" two"')
        await follower.post(asking(stream=True))
        await follower.until(b'" two"')
        leader.leave()
        await gateway.until_gone(1)
        follower.leave()
        await upstream.until_gone()
        rows = await gateway.books.until(2)

    assert {row["state"] for row in rows} == {"abandoned"}


async def test_a_leader_that_fails_before_its_first_word_leaves_the_lead_to_a_follower(tmp_path):
    hold = Hold()
    scripts = [[hold, refusal("500 Internal Server Error")], ANSWER.since(0)]

    def play(received):
        return scripts.pop(0) if len(scripts) > 1 else ANSWER(received)

    async with (
        ScriptedUpstream(play) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        leader = asyncio.create_task(gateway.chat())
        await hold.reached.wait()
        followers = [asyncio.create_task(gateway.chat()) for _ in range(3)]
        await gateway.until_under_way(4)
        hold.release()
        failed, *answers = await asyncio.gather(leader, *followers)

    assert failed.status_code == 503
    assert [answer.json() for answer in answers] == [ANSWER.body()] * 3
    assert len(upstream.requests) == 2
    assert sorted(a.headers["x-cache"] for a in answers) == ["exact", "exact", "miss"]


async def test_a_leader_that_fails_in_the_middle_ends_all_with_an_error_event(tmp_path):
    hold = Hold()
    async with (
        ScriptedUpstream([[*ANSWER.until(2), hold, RST]]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        asked = [asyncio.create_task(gateway.chat(stream=True)) for _ in range(3)]
        await hold.reached.wait()
        await gateway.until_under_way(3)
        hold.release()
        answers = await asyncio.gather(*asked)

    assert len(upstream.requests) == 1
    for answer in answers:
        *_, last = events_of(answer)
        assert last["error"]["type"] == "upstream_error"
        assert "[DONE]" not in answer.text
    rows = gateway.books.entries()
    assert {row["state"] for row in rows} == {"failed"}
    assert sum(row["cost_nano_usd"] > 0 for row in rows) == 1


async def test_a_limit_reached_goes_to_a_few_leaders_and_then_to_all_who_wait(tmp_path):
    hold = Hold()
    async with (
        ScriptedUpstream([[hold, refusal("429 Too Many Requests", retry_after="9")]]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        asked = [asyncio.create_task(gateway.chat()) for _ in range(20)]
        await hold.reached.wait()
        await gateway.until_under_way(20)
        hold.release()
        answers = await asyncio.gather(*asked)

    assert {answer.status_code for answer in answers} == {429}
    assert {answer.headers["retry-after"] for answer in answers} == {"9"}
    assert len(upstream.requests) <= 4


async def test_unequal_requests_do_not_wait_for_each_other(tmp_path):
    model = Slow()
    async with (
        ScriptedUpstream(lambda r: model(r) if "stuck" in str(r.json) else ANSWER(r)) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        stuck = asyncio.create_task(gateway.chat("stuck"))
        await model.hold.reached.wait()
        free: httpx.Response = await gateway.chat("free")
        model.hold.release()
        await stuck

    assert free.json() == ANSWER.body()
    assert len(upstream.requests) == 2


class Long:
    """A model whose answer no socket holds; it waits before the second of its words."""

    def __init__(self, size: int) -> None:
        self.hold = Hold()
        self.says = Says(" ".join(["x" * 250_000] * (size // 250_000)), tokens=(10, 4))

    def __call__(self, received):
        return [*self.says.until(1), self.hold, *self.says.since(1)]


async def test_a_leader_whose_client_reads_nothing_holds_nobody_up(tmp_path):
    model = Long(MOST_BEHIND - 500_000)
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        StandstillClient(gateway.port) as leader,
    ):
        await leader.post(asking(stream=True))
        await gateway.until_under_way(1)
        followers = [asyncio.create_task(gateway.chat(stream=True)) for _ in range(2)]
        await gateway.until_under_way(3)
        model.hold.release()
        followed = [text_of(events_of(await each)) for each in followers]
        led = await leader.until(b"[DONE]")
        rows = await gateway.books.until(3)

    assert followed == [model.says.text] * 2
    assert text_of(events_of(led.decode())) == model.says.text
    assert len(upstream.requests) == 1
    assert sorted(row["cost_nano_usd"] for row in rows) == [0, 0, 18_000]


async def test_a_leader_too_far_behind_is_broken_off_with_an_error_event(tmp_path):
    model = Long(3 * MOST_BEHIND)
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        StandstillClient(gateway.port) as leader,
    ):
        await leader.post(asking(stream=True))
        await gateway.until_under_way(1)
        follower = asyncio.create_task(gateway.chat(stream=True))
        await gateway.until_under_way(2)
        model.hold.release()
        followed = await follower
        led = await leader.until(b"read_too_slowly")
        rows = await gateway.books.until(2)

    assert text_of(events_of(followed)) == model.says.text
    assert b"[DONE]" not in led
    assert b'"finish_reason":"stop"' not in led.replace(b" ", b"")
    assert len(upstream.requests) == 1
    assert sorted((row["state"], row["cost_nano_usd"]) for row in rows) == [
        ("failed", 18_000),
        ("settled", 0),
    ]
