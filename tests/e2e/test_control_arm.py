"""The control arm over HTTP: a drawn share goes straight to the reference."""

from __future__ import annotations

import pytest

from gateway.money.reports import cost_report
from tests.support.gateway_app import serving
from tests.support.policies import two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import FIN, ScriptedUpstream

SURE = Says("a sure draft", tokens=(10, 3), logprobs=[-0.01, -0.02, -0.05], name="small-up")
BEST = Says("the large answer", tokens=(11, 4), name="large-up")
HALF = {"control": 0.5}


async def asked(gateway, count, **members):
    return [await gateway.chat(f"question {number}", **members) for number in range(count)]


@pytest.mark.parametrize("stream", [False, True])
async def test_drawn_share_goes_straight_to_the_reference(tmp_path, stream):
    async with (
        ScriptedUpstream(SURE) as small,
        ScriptedUpstream(BEST) as large,
        serving(two_tiers(small.url, large.url, cascade=HALF), tmp_path) as gateway,
    ):
        paths = {r.headers["x-frugal-path"] for r in await asked(gateway, 40, stream=stream)}

    assert paths == {"small:0.95:accepted", "large:control"}
    rows = [row for row in gateway.books.entries() if row["path"] == "large:control"]
    (line,) = gateway.books.lines(rows[0]["request_id"])
    assert (line["purpose"], line["outcome"], line["payer"]) == ("control", "accepted", "default")
    (measured,) = cost_report(gateway.books.url).measured
    assert measured.control_requests == len(rows)


async def test_request_whose_reference_fails_is_answered_as_usual(tmp_path):
    async with (
        ScriptedUpstream(SURE) as small,
        ScriptedUpstream([[FIN]]) as large,
        serving(two_tiers(small.url, large.url, cascade=HALF), tmp_path) as gateway,
    ):
        answers = await asked(gateway, 16)

    assert {answer.status_code for answer in answers} == {200}
    ways = {answer.headers["x-frugal-path"].rpartition(",")[2] for answer in answers}
    assert ways == {"small:0.95:accepted"}
    assert any(a.headers["x-frugal-path"].startswith("large:") for a in answers)


async def test_rule_that_leaves_the_reference_out_leaves_the_arm_out(tmp_path):
    rules = [{"when": {"has_tools": False}, "model": "small"}]
    async with (
        ScriptedUpstream(SURE) as small,
        ScriptedUpstream(BEST) as large,
        serving(two_tiers(small.url, large.url, cascade=HALF, rules=rules), tmp_path) as gateway,
    ):
        await asked(gateway, 16)

    assert not large.requests
