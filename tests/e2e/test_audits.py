"""Audits over HTTP: served drafts are asked again of the reference, at the gateway's own cost."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.learning.book import Book
from gateway.learning.traffic import traffic_of
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote, two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

SURE = Says("#### 42", tokens=(10, 3), logprobs=[-0.01, -0.02], name="small-up")
UNSURE = Says("#### 42", tokens=(10, 3), logprobs=[-0.1, -3.0], name="small-up")
RIGHT = Says("#### 42", tokens=(11, 4), name="large-up")
OTHER = Says("#### 7", tokens=(11, 4), name="large-up")


@pytest.fixture
async def small():
    async with ScriptedUpstream(SURE) as server:
        yield server


async def outcomes(gateway, count):
    book = Book(gateway.books.url)
    try:
        async with asyncio.timeout(20):
            while len(rows := book.rows("auto")) < count:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
            return rows
    finally:
        book.close()


@pytest.mark.parametrize(("large", "score"), [(RIGHT, 1.0), (OTHER, 0.0)])
async def test_served_draft_is_compared_with_the_references_answer(tmp_path, small, large, score):
    async with (
        ScriptedUpstream(large) as upstream,
        serving(
            two_tiers(small.url, upstream.url, cascade={"audit": {"share": 1}}), tmp_path
        ) as gateway,
    ):
        response = await gateway.chat(stream=True)
        draft, truth = await outcomes(gateway, 2)
        told = (await gateway.admin.get("/admin/routes/auto/quality")).json()
        missing = await gateway.admin.get("/admin/routes/other/quality")
        entries = {row["request_id"][-1] == "a": row for row in await gateway.books.until(2)}

    assert response.headers["x-frugal-model"] == "small"
    assert (draft.model, draft.score, draft.labeller) == ("small", score, "exact")
    assert (told["drawn"], told["losses"]) == (1, score == 0.0)
    assert missing.status_code == 404
    assert (draft.served, draft.drawn, draft.propensity) == (True, True, 1.0)
    assert draft.quality == pytest.approx(0.98, abs=0.01)
    assert (truth.model, truth.score, truth.labeller) == ("large", 1.0, "reference")
    assert '"logprob_q00":-0.02' in draft.stats
    assert (draft.messages, draft.response) == (None, None)
    own = entries[True]
    assert (own["tenant"], own["key"], own["cost_nano_usd"]) == ("gateway", "audit", 0)
    (line,) = gateway.books.lines(own["request_id"])
    assert (line["purpose"], line["payer"]) == ("audit", "gateway")
    assert truth.cost_nano_usd == line["cost_nano_usd"] == 11 * 10_000 + 4 * 20_000


async def test_escalated_request_is_a_pair_for_nothing(tmp_path):
    given = {"audit": {"share": 0}}
    async with (
        ScriptedUpstream(UNSURE) as small,
        ScriptedUpstream(RIGHT) as large,
        serving(
            two_tiers(small.url, large.url, cascade=given, cache=None)[:-1]
            + ',"privacy": {"store_texts": true}}',
            tmp_path,
        ) as gateway,
    ):
        await gateway.chat("what is it?")
        draft, truth = await outcomes(gateway, 2)

    assert (draft.score, draft.served, draft.drawn) == (1.0, False, False)
    assert (truth.served, truth.cost_nano_usd) == (True, 190_000)
    assert "what is it?" in (draft.messages or "")
    assert draft.response == "#### 42"
    assert len(large.requests) == 1


async def test_days_money_used_up_ends_the_audits(tmp_path, small):
    audit = {"share": 1, "max_usd_per_day": 0.0001}
    async with (
        ScriptedUpstream(RIGHT) as large,
        serving(
            two_tiers(small.url, large.url, cascade={"audit": audit}, cache=None), tmp_path
        ) as gateway,
    ):
        for number in range(5):
            await gateway.chat(f"question {number}")
            if number == 0:
                await outcomes(gateway, 2)
        await outcomes(gateway, 3)

    assert len(large.requests) == 1


async def test_judge_is_checked_where_the_answers_tell_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.learning.observing._CHECKED", 1.0)
    async with (
        ScriptedUpstream(Says("#### 41", logprobs=[-0.01] * 2)) as small,
        ScriptedUpstream(Says("#### 42")) as large,
        ScriptedUpstream(Says("TIE")) as third,
    ):
        models = {
            "small": remote(small.url, logprobs=True),
            "large": remote(large.url),
            "third": remote(third.url),
        }
        cascade = {
            "tiers": ["small", "large"],
            "confidence": {"kind": "logprob", "threshold": 0.8},
            "audit": {"share": 1, "judge": "third"},
        }
        async with serving(policy(models, {"auto": {"cascade": cascade}}), tmp_path) as gateway:
            await gateway.chat()
            draft, _ = await outcomes(gateway, 2)

    assert (draft.score, draft.labeller) == (0.0, "exact")
    assert json.loads(draft.stats)["judge"] == 1.0
    assert len(third.requests) == 2


async def test_judge_tells_where_words_alone_cannot(tmp_path):
    prose = Says("It was moved north, as far as anybody knows about these times, by the king.",
                 logprobs=[-0.01] * 15)  # fmt: skip
    better = Says("They moved the whole capital northwards in the year of the great flood of 1310.")

    def judge(received):
        told = received.json["messages"][1]["content"]
        is_forth = told.index("king") < told.index("1310")
        return Says("SECOND" if is_forth else "FIRST")(received)

    async with (
        ScriptedUpstream(prose) as small,
        ScriptedUpstream(better) as large,
        ScriptedUpstream(judge) as third,
    ):
        models = {
            "small": remote(small.url, logprobs=True),
            "large": remote(large.url),
            "third": remote(third.url),
        }
        cascade = {
            "tiers": ["small", "large"],
            "confidence": {"kind": "logprob", "threshold": 0.8},
            "audit": {"share": 1, "judge": "third"},
        }
        async with serving(policy(models, {"auto": {"cascade": cascade}}), tmp_path) as gateway:
            await gateway.chat()
            draft, _ = await outcomes(gateway, 2)

    assert (draft.score, draft.labeller) == (0.0, "judge")
    assert len(third.requests) == 2


async def test_key_without_background_is_left_alone(tmp_path, small):
    async with ScriptedUpstream(RIGHT) as large:
        text = two_tiers(small.url, large.url, cascade={"audit": {"share": 1}}, cache=None)
        keys = [{"name": "a", "key": "secret", "background": "off"}]
        whole = json.loads(text)
        whole["access"]["keys"] = keys
        async with serving(json.dumps(whole), tmp_path) as gateway:
            await gateway.chat(headers={"authorization": "Bearer secret"})
            await gateway.chat("another")
            rows = await outcomes(gateway, 2)

    assert len({row.request_id for row in rows}) == 1
    assert len(large.requests) == 1


async def test_drawn_request_tells_of_tiers_it_has_passed_over_where_a_learner_may_come(tmp_path):
    unsure = Says("#### 41", tokens=(10, 3), logprobs=[-2.0, -3.0], name="middle-up")
    async with (
        ScriptedUpstream(SURE) as small,
        ScriptedUpstream(unsure) as middle,
        ScriptedUpstream(RIGHT) as large,
    ):
        models = {
            "small": remote(small.url, logprobs=True),
            "middle": remote(middle.url, logprobs=True),
            "large": remote(large.url),
        }
        cascade = {
            "tiers": ["small", "middle", "large"],
            "confidence": "learned",
            "target": {"usd_per_quality_point": 0.01},
            "audit": {"share": 1},
        }
        kept = {"privacy": {"store_texts": True}}
        text = policy(models, {"auto": {"cascade": cascade}}, **kept)
        async with serving(text, tmp_path) as gateway:
            response = await gateway.chat()
            rows = {row.model: row for row in await outcomes(gateway, 3)}

    assert response.headers["x-frugal-path"] == "small:0.98:accepted"
    assert [rows[name].score for name in ("small", "middle", "large")] == [1.0, 0.0, 1.0]
    (asked,) = traffic_of(rows.values(), "large")
    assert [seen.model for seen in asked.drafts] == ["small"]
    assert [seen.model for seen in asked.beside] == ["middle"]
    assert rows["middle"].response == "#### 41"
