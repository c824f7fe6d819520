from __future__ import annotations

import pytest

from tests.policies.support import SMALL, load, routes, told


def test_one_budget_may_stand_without_a_list():
    budgets = load(SMALL + "limits: {budget: {usd: 200, per: day}}").limits.budget

    assert [(each.usd, each.per, each.at_limit) for each in budgets] == [(200, "day", "refuse")]


def test_a_key_inherits_what_it_does_not_write():
    text = (
        SMALL
        + """
limits: {requests_per_minute: 60, concurrent: 4, budget: {usd: 1}}
access: {keys: [{name: a, key: k, limits: {requests_per_minute: 5, budget: []}}]}
"""
    )
    policy = load(text)
    limits = policy.access.keys[0].limits.over(policy.limits)

    assert (limits.requests_per_minute, limits.concurrent, limits.budget) == (5, 4, ())


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ("{requests_per_minute: 0}", "limits.requests_per_minute: expected at least 1, found 0"),
        ("{request_per_minute: 5}", "did you mean 'requests_per_minute'?"),
        ("{budget: {usd: 1, per: week}}", "limits.budget.per: expected hour, day, month or total"),
        ("{budget: {per: day}}", "limits.budget: the key 'usd' is missing"),
        ("{budget: {usd: -1}}", "limits.budget.usd: expected at least 0"),
        ("{budget: {usd: 1, time_zone: Mars/Olympus}}", "expected a time zone such as UTC"),
        ("{budget: [{usd: 1}, {usd: 2}]}", "expected budgets that differ in per"),
        ("{budget: {usd: 1, at_limit: cheap}}", "did you mean 'cheapest'?"),
        ("{without_redis: opn}", "did you mean 'open'?"),
        ("{tags: {batch: {concurrent: 5}}}", "limits.tags.batch.concurrent"),
    ],
)
def test_limits_that_make_no_sense_are_refused_in_words(limits, fault):
    lines = told(SMALL + f"limits: {limits}")

    assert any(fault in line for line in lines), lines


def test_a_models_limits_hold_no_budget():
    (line,) = told(SMALL.replace("sk-large", "k, limits: {budget: {usd: 1}}"))

    assert "models.large.limits.budget: unknown key 'budget'" in line


def test_limits_leave_the_revision_alone():
    plain = load(routes("  r: {model: tiny}"))
    limited = load(routes("  r: {model: tiny, limits: {concurrent: 1}}"))

    assert plain.revision("r") == limited.revision("r")
