"""Questions in other words, over the wire: answered once, guarded, audited, accounted for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.store import AnswerStore
from gateway.clock import Clock
from tests.support.gateway_app import asking, events_of, serving, text_of
from tests.support.policies import one_model, two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

ANSWER = Says("Open settings and press reset", tokens=(10, 5))
FIRST = "How do I reset my password?"
AGAIN = "how do I reset my password please"
SEMANTIC = {"max_error": 0.5, "audit": 0}


class Time:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


def near(**more):
    return {"exact": {"ttl": "1h"}, "semantic": {**SEMANTIC, **more}}


@pytest.mark.parametrize("streams", [(False, False), (True, True), (True, False), (False, True)])
async def test_a_question_in_other_words_is_answered_for_nothing(tmp_path, streams):
    first, again = streams
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST, stream=first)
        answer = await gateway.chat(AGAIN, stream=again)

    assert len(upstream.requests) == 1
    assert answer.headers["x-cache"] == "semantic"
    assert 0.8 < float(answer.headers["x-cache-similarity"]) <= 1
    if again:
        assert text_of(events_of(answer)) == ANSWER.text
    else:
        assert answer.json()["choices"][0]["message"]["content"] == ANSWER.text
        assert float(answer.headers["x-frugal-cost-usd"]) == 0
    row, _ = gateway.books.entries()[::-1]
    assert (row["cache"], row["cost_nano_usd"], row["saved_nano_usd"]) == ("semantic", 0, 20_000)
    assert row["model"] == "large"


async def test_an_answer_that_a_client_found_bad_is_not_served_in_other_words_again(tmp_path):
    async def say(gateway, answer, rating):
        said = {"request_id": answer.headers["x-request-id"], "rating": rating}
        return (await gateway.client.post("/v1/feedback", json=said)).json()

    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        liked = await gateway.chat(AGAIN)
        await say(gateway, liked, "good")
        disliked = await gateway.chat(AGAIN)
        told = await say(gateway, disliked, "bad")
        after = await gateway.chat(AGAIN)
        counted = (await gateway.admin.get("/admin/cache")).json()["semantic"]

    assert liked.headers["x-cache"] == disliked.headers["x-cache"] == "semantic"
    assert told["counts"]
    assert after.headers["x-cache"] == "miss"
    assert counted["doubted"] == 1
    assert counted["budgets"] == []


async def test_the_same_words_are_still_an_exact_hit(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)

        assert (await gateway.chat(FIRST)).headers["x-cache"] == "exact"


async def test_the_semantic_cache_works_without_the_exact_one(tmp_path):
    cache = {"semantic": SEMANTIC}
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=cache), tmp_path) as gateway,
    ):
        first = await gateway.chat(FIRST)

        assert first.headers["x-cache"] == "miss"
        assert (await gateway.chat(AGAIN)).headers["x-cache"] == "semantic"


@pytest.mark.parametrize(
    ("cache_ttl", "age", "state"),
    [(60, 59, "semantic"), (60, 61, "miss"), (86_400, 3599, "semantic"), (86_400, 3601, "miss")],
)
async def test_a_request_may_have_its_answer_kept_for_less_and_never_for_more(
    tmp_path, cache_ttl, age, state
):
    time = Time()
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(
            one_model(upstream.url, cache=near(ttl="1h")), tmp_path,
            clock=Clock(wall=time, tick=time),
        ) as gateway,
    ):  # fmt: skip
        await gateway.chat(FIRST, frugal={"cache_ttl": cache_ttl})
        time.now += age
        answer = await gateway.chat(AGAIN)

    assert answer.headers["x-cache"] == state


async def test_a_request_that_is_not_to_be_kept_leaves_nothing_behind(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST, headers={"cache-control": "no-store"})
        answer = await gateway.chat(AGAIN)

    assert answer.headers["x-cache"] == "miss"


TOOL = {"type": "function", "function": {"name": "f"}}


async def test_what_may_differ_is_asked_of_a_model(tmp_path):
    pairs = [
        ("Convert 5 miles to kilometres", "Convert 7 miles to kilometres", {}),
        ("What is the weather like?", "What is the weather like today?", {}),
        (FIRST, AGAIN, {"n": 2}),
        (FIRST, AGAIN, {"temperature": 1.4}),
        (FIRST, AGAIN, {"tools": [TOOL]}),
    ]
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        found = []
        for one, other, members in pairs:
            await gateway.chat(one, **members)
            found.append((await gateway.chat(other, **members)).headers["x-cache"])

    assert found == ["miss"] * len(pairs)
    assert len(upstream.requests) == 2 * len(pairs)


async def test_another_parameter_or_header_asks_a_model(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        colder = await gateway.chat(AGAIN, temperature=0)
        exact = await gateway.chat(AGAIN + ".", headers={"x-frugal-cache": "exact"})
        fresh = await gateway.chat(AGAIN + "!", headers={"cache-control": "max-age=0"})
        german = await gateway.chat(AGAIN, headers={"accept-language": "de"})

    assert [a.headers["x-cache"] for a in (colder, exact, fresh, german)] == ["miss"] * 4


async def test_a_draft_that_was_not_good_enough_is_not_kept_but_the_better_answer_is(tmp_path):
    small = Says("Perhaps press something", tokens=(10, 5), logprobs=[-3.0] * 5)
    async with (
        ScriptedUpstream(small) as cheap,
        ScriptedUpstream(ANSWER) as dear,
        serving(two_tiers(cheap.url, dear.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        answer = await gateway.chat(AGAIN)

    assert answer.headers["x-frugal-model"] == "large"
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER.text


async def test_an_answer_cut_short_is_not_kept(tmp_path):
    cut = Says("Open settings and", tokens=(10, 3), finish_reason="length")
    async with (
        ScriptedUpstream(cut) as upstream,
        serving(one_model(upstream.url, cache=near()), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)

        assert (await gateway.chat(AGAIN)).headers["x-cache"] == "miss"


async def test_answers_survive_a_restart(tmp_path):
    async with ScriptedUpstream(ANSWER) as upstream:
        policy = one_model(upstream.url, cache=near())
        async with serving(policy, tmp_path) as gateway:
            await gateway.chat(FIRST)
        async with serving(policy, tmp_path) as gateway:
            answer = await gateway.chat(AGAIN)

    assert answer.headers["x-cache"] == "semantic"


async def test_a_hit_is_audited_at_the_gateways_own_cost(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near(audit=1)), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        answer = await gateway.chat(AGAIN)
        rows = await gateway.books.until(3)
        (audit,) = (row for row in rows if row["tenant"] == "gateway")
        (line,) = gateway.books.lines(audit["request_id"])

    assert answer.headers["x-cache"] == "semantic"
    assert audit["request_id"] == answer.headers["x-request-id"] + "a"
    assert (line["purpose"], line["payer"], line["cost_nano_usd"]) == ("audit", "gateway", 20_000)
    assert audit["cost_nano_usd"] == 0


async def test_an_answer_found_wrong_is_not_served_again(tmp_path):
    asked = []

    def changing(received):
        asked.append(received)
        text = "Press the red button" if len(asked) == 1 else "Move to another country"
        return Says(text, tokens=(10, 5))(received)

    async with (
        ScriptedUpstream(changing) as upstream,
        serving(one_model(upstream.url, cache=near(audit=1)), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        wrong = await gateway.chat(AGAIN)
        async with asyncio.timeout(20):
            while (right := await gateway.chat(AGAIN)).headers["x-cache"] == "semantic":
                pass

    assert wrong.headers["x-cache"] == "semantic"
    assert right.json()["choices"][0]["message"]["content"] == "Move to another country"


async def test_an_operator_sees_what_it_holds_and_makes_it_forget(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near(audit=1)), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        await gateway.chat(AGAIN)
        async with asyncio.timeout(20):
            while not (await seen(gateway))["budgets"]:
                pass
        told = await seen(gateway)
        one = {"request": asking(FIRST), "tenant": "default"}
        url = "/admin/cache/invalidate"
        dry = (await gateway.admin.post(url, json={**one, "dry_run": True})).json()
        done = (await gateway.admin.post(url, json=one)).json()
        after = await gateway.chat(AGAIN + "?")

    assert (told["entries"], told["hits"], told["lookups"], told["found_wrong"]) == (1, 1, 2, 0)
    (budget,) = told["budgets"]
    assert (budget["route"], budget["tenant"], budget["state"]) == ("auto", "default", "serving")
    assert budget["interval"][0] == 0 < budget["interval"][1]
    assert dry["semantic_entries"] == done["semantic_entries"] == 1
    assert after.headers["x-cache"] == "miss"


async def seen(gateway):
    return (await gateway.admin.get("/admin/cache")).json()["semantic"]


async def test_a_route_whose_budget_is_spent_asks_models_until_it_is_certified_again(tmp_path):
    with AnswerStore(tmp_path / "ledger-semantic.db", "any") as store:
        store.put_budget("default", "auto", ErrorBudget(is_serving=False, stops=1))
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache={"semantic": SEMANTIC}), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        withheld = await gateway.chat(AGAIN)
        async with asyncio.timeout(30):
            while (await gateway.chat(AGAIN)).headers["x-cache"] != "semantic":
                pass
        told = await seen(gateway)

    assert withheld.headers["x-cache"] == "miss"
    assert len(upstream.requests) > 2
    assert told["withheld"] >= 3
    assert told["budgets"][0]["state"] == "serving"


@pytest.mark.parametrize("exact", [{"exact": {"ttl": "1h"}}, {}])
async def test_a_budget_that_is_gone_refuses_models_and_not_what_the_cache_knows(tmp_path, exact):
    async with ScriptedUpstream(Says("Open settings", tokens=(10, 280))) as upstream:
        cache = {**exact, "semantic": SEMANTIC}
        limits = {"budget": {"usd": "0.0014", "per": "total"}}
        text = one_model(upstream.url, cache=cache, limits=limits)
        async with serving(text, tmp_path) as gateway:
            await gateway.chat(FIRST, max_tokens=280)
            known = await gateway.chat(AGAIN, max_tokens=280)
            unknown = await asyncio.gather(
                *(gateway.chat("Who wrote Faust?", max_tokens=280) for _ in range(2))
            )

    assert (known.status_code, known.headers["x-cache"]) == (200, "semantic")
    assert [each.status_code for each in unknown] == [429, 429]
    assert len(upstream.requests) == 1


def held(folder):
    """Return how many questions are kept, and how many answers are told apart."""
    with closing(sqlite3.connect(folder / "ledger-semantic.db")) as file:
        return file.execute("SELECT count(*), count(DISTINCT answer_key) FROM answer").fetchone()


async def test_a_judge_says_whether_a_stored_answer_would_have_served(tmp_path):
    replies = iter(("Open settings", "Choose reset in the menu"))

    def judged(received):
        text = json.loads(received.body)["messages"][-1]["content"]
        return Says("YES" if text.startswith("{") else next(replies), tokens=(10, 5))(received)

    async with (
        ScriptedUpstream(judged) as upstream,
        serving(
            one_model(upstream.url, cache=near(judge="large", max_error=1e-9)), tmp_path
        ) as gateway,
    ):
        await gateway.chat(FIRST)
        async with asyncio.timeout(20):
            while (await seen(gateway))["entries"] < 1:
                pass
        await gateway.chat(AGAIN)
        rows = await gateway.books.until(3)
        async with asyncio.timeout(20):
            while (told := await seen(gateway))["taught"] < 1:
                pass
            # What it approved is an alias: one answer.
            while held(tmp_path) != (2, 1):  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)

    (judge,) = (row for row in rows if row["tenant"] == "gateway")
    assert (judge["key"], judge["cost_nano_usd"]) == ("judge", 0)
    assert (told["judged"], told["audited"]) == (1, 0)


async def test_background_calls_stop_for_the_day_at_their_cap(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(
            one_model(upstream.url, cache=near(audit=1, background_usd_per_day=0.00002)), tmp_path
        ) as gateway,
    ):
        await gateway.chat(FIRST)
        for n in range(4):
            await gateway.chat(AGAIN + "!" * n)
            if n == 0:
                await gateway.books.until(3)

        rows = await gateway.books.until(6)

    assert sum(row["tenant"] == "gateway" for row in rows) == 1


async def test_a_hit_may_be_put_off_and_is_the_same_answer(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, cache=near(jitter="5ms")), tmp_path) as gateway,
    ):
        await gateway.chat(FIRST)
        answer = await gateway.chat(AGAIN)

    assert answer.headers["x-cache"] == "semantic"
