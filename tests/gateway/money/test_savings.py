from __future__ import annotations

import math

import pytest
from scipy import stats

from gateway.money.reports import cost_report
from gateway.money.rollup import Rollup
from gateway.money.savings import Arm, measured
from gateway.money.sqlite import SqliteStore
from tests.support.money import attempt, entry

NANO = 10**9


def _arm(costs):
    return Arm(len(costs), sum(costs), math.fsum((cost / NANO) ** 2 for cost in costs))


def test_nothing_is_measured_before_both_arms_have_enough():
    few, many = _arm([10] * 29), _arm([1] * 1000)

    assert measured("auto", few, many).saved_nano_usd is None
    assert measured("auto", many, few).saved_nano_usd is None
    assert measured("auto", few, many).control_requests == 29


def test_the_difference_and_its_interval_are_those_of_welch():
    control = [NANO * (5 + i % 7) for i in range(40)]
    policy = [NANO * (1 + i % 3) for i in range(200)]
    found = measured("auto", _arm(control), _arm(policy))
    oracle = stats.ttest_ind(control, policy, equal_var=False).confidence_interval(0.95)

    assert found.saved_nano_usd == pytest.approx(
        200 * (sum(control) / 40 - sum(policy) / 200), abs=200
    )
    assert found.low_nano_usd == pytest.approx(200 * oracle.low, rel=1e-4)
    assert found.high_nano_usd == pytest.approx(200 * oracle.high, rel=1e-4)


def test_arms_without_spread_have_an_interval_of_nothing():
    found = measured("auto", _arm([10 * NANO] * 30), _arm([4 * NANO] * 50))

    assert found.low_nano_usd == found.saved_nano_usd == found.high_nano_usd == 300 * NANO


@pytest.mark.parametrize("is_added", [False, True])
def test_the_ledger_tells_the_arms_apart_and_leaves_out_hits_audits_and_failures(
    tmp_path, is_added
):
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    store.open()
    for i in range(40):
        arm = "control" if i < 30 else "serve"
        cost = 9_000 if i < 30 else 1_000
        payer = "gateway" if i < 30 else "platform"
        store.commit(
            [entry(f"{i}", cost_nano_usd=cost)],
            [
                attempt(f"{i}", 0, purpose=arm, payer=payer, cost_nano_usd=cost),
                attempt(f"{i}", 1, purpose="audit", payer="gateway", cost_nano_usd=70_000),
            ],
        )
    store.commit([entry("hit", cache="exact"), entry("lost", state="failed")], [attempt("lost")])
    store.close()
    if is_added:
        Rollup(path).step()
    (line,) = cost_report(f"sqlite:///{path}").measured

    assert (line.route, line.control_requests, line.policy_requests) == ("auto", 30, 10)
    assert line.saved_nano_usd is None
