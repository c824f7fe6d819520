"""Who is turned away while the event loop lags, and over the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded
from gateway.resilience.shed import LOOKS, Shedding
from policies.limits import ShedRules
from tests.support.gateway_app import serving
from tests.support.policies import one_model
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

PRIORITIES = ("low", "normal", "high")


def _after(*lags):
    shedding = Shedding(ShedRules(lag=0.1))
    for lag in lags:
        shedding.saw(lag)
    return [each for each in PRIORITIES if shedding.turns_away(each)]


@pytest.mark.parametrize(
    ("lag", "away"),
    [(0.0, []), (0.09, []), (0.1, ["low"]), (0.2, ["low", "normal"]), (0.4, list(PRIORITIES))],
)
def test_the_lowest_priority_is_turned_away_first(lag, away):
    assert _after(*[lag] * LOOKS) == away


def test_a_moment_is_no_overload_and_nothing_lasts_longer_than_the_lag():
    assert _after(9.0) == []
    assert _after(*[9.0] * (LOOKS - 1)) == []
    assert _after(*[9.0] * LOOKS, 0.0) == []


@given(st.lists(st.floats(0, 10)))
def test_whoever_is_turned_away_so_are_all_of_lower_priority(lags):
    assert _after(*lags) == list(PRIORITIES[: len(_after(*lags))])


def test_who_is_turned_away_may_come_again():
    shedding = Shedding(ShedRules(lag=0.1))
    for _ in range(LOOKS):
        shedding.saw(0.1)

    shedding.check("normal")
    with pytest.raises(Overloaded) as caught:
        shedding.check("low")
    assert (caught.value.status, caught.value.retry_after) == (503, "1")


async def test_over_the_wire_health_is_never_shed(tmp_path):
    limits = {"shed": {"lag": 1e-9}, "priority": "low"}  # every loop lags by as much
    async with ScriptedUpstream(Says("yes")) as upstream:
        text = one_model(upstream.url).replace('"version": 1', '"version": 1, "limits": %s')
        text %= str(limits).replace("'", '"')
        async with serving(text, tmp_path) as gateway:
            for _ in range(10_000):
                shed = await gateway.chat()
                if shed.status_code == 503:
                    break
            counted = (await gateway.admin.get("/admin/refusals")).json()["data"]
            health = [(await gateway.client.get(f"/health/{each}")) for each in ("live", "ready")]

    assert shed.json()["error"]["code"] == "overloaded"
    assert shed.headers["retry-after"] == "1"
    assert [(each["code"], each["requests"]) for each in counted] == [("overloaded", 1)]
    assert [each.status_code for each in health] == [200, 200]
