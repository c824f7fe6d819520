"""How budgets stand: their windows, what is spent and set aside, and what is foretold."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.access.keys import Caller
from gateway.access.spent import spent_of
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from gateway.reporting.budgets import MOST_POINTS, budgets
from policies.loader import parse_policy
from tests.support.money import entry
from tests.support.policies import policy, remote

NOW = datetime(2026, 11, 16, 12, 30, tzinfo=UTC).timestamp()
DAY = 86_400
LIMITS = {
    "budget": {"usd": 1, "per": "day", "time_zone": "Asia/Kolkata"},
    "tenants": {"web": {"budget": {"usd": 2, "per": "month", "at_limit": "warn"}}},
    "tags": {"night": {"budget": {"usd": 3, "per": "total"}}},
}
ROUTES = {"auto": {"model": "large", "limits": {"budget": {"usd": 0.5, "per": "hour"}}}}
MODELS = {"large": remote("http://127.0.0.1:1/v1", price={"machine_hour_usd": 0})}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("budgets") / "ledger.db"
    store = SqliteStore(path)
    store.open()
    for number in range(400):
        store.commit(
            [
                entry(
                    f"r{number:03}",
                    started_at_us=int((NOW - number * 3_100) * 1e6),
                    tenant=("web", "legal")[number % 4 == 0],
                    key=("ci", "boss")[number % 3 == 0],
                    cost_nano_usd=10_000_000,
                    tags=("night", "x") if number % 5 == 0 else (),
                    error="interrupted" if number == 1 else None,
                    upper_nano_usd=90_000_000 if number == 1 else 10_000_000,
                )
            ],
            [],
        )
    store.close()
    Rollup(path, at_once=390).step()
    return path


@pytest.fixture(scope="module")
def told(path):
    text = policy(MODELS, ROUTES, limits=LIMITS)
    checked = parse_policy(text, name="p", env={})
    callers = [Caller(name, "web") for name in ("boss", "unused", "begun")]
    purses = []

    def held(purse):
        if purse.scope == ("key", "unused"):
            return 0
        purses.append(purse)
        return 7

    found = budgets(f"sqlite:///{path}", checked, callers, now_s=NOW, held=held)
    return {(each.kind, each.name): each for each in found.budgets}, purses


def test_every_budget_is_told_and_a_key_that_spent_nothing_and_is_about_to_spend_nothing_is_not(
    told,
):
    found, _ = told

    assert set(found) == {
        ("key", "ci"), ("key", "boss"), ("key", "begun"), ("tenant", "web"), ("tag", "night"),
        ("route", "auto"),
    }  # fmt: skip


def test_what_is_spent_is_what_admission_counts(told, path):
    found, purses = told

    assert [found[purse.scope].spent_nano_usd for purse in purses] == [
        spent_of(path, purse) for purse in purses
    ]


def test_windows_follow_their_time_zone(told):
    found, _ = told

    assert (found["key", "ci"].start, found["key", "ci"].end) == (
        "2026-11-15T18:30:00Z", "2026-11-16T18:30:00Z",
    )  # fmt: skip
    assert found["tenant", "web"].start == "2026-11-01T00:00:00Z"
    assert found["tag", "night"].end is None


def test_a_burn_down_ends_with_what_is_left(told):
    for each in told[0].values():
        last = each.burn_down[-1]

        assert last.left_nano_usd == each.limit_nano_usd - each.spent_nano_usd
        assert last.spent_nano_usd == each.spent_nano_usd
        assert each.reserved_nano_usd == 7


def test_the_fullest_are_listed_and_the_others_counted(path, told):
    checked = parse_policy(policy(MODELS, ROUTES, limits=LIMITS), name="p", env={})
    callers = [Caller(name, "web") for name in ("boss", "unused", "begun")]
    found = budgets(f"sqlite:///{path}", checked, callers, now_s=NOW, held=lambda _: 0, most=2)
    shares = sorted((each.share for each in told[0].values()), reverse=True)

    assert ([each.share for each in found.budgets], found.left_out) == (shares[:2], 3)


def test_a_budget_without_end_has_a_burn_down_of_bounded_length(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    days = MOST_POINTS * 3 + 7
    lines = [
        entry(f"r{n}", started_at_us=int((NOW - n * DAY) * 1e6), tags=("night",), cost_nano_usd=n)
        for n in range(days)
    ]
    store.commit(lines, [])
    store.close()
    checked = parse_policy(policy(MODELS, ROUTES, limits=LIMITS), name="p", env={})
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    found = budgets(url, checked, [], now_s=NOW, held=lambda _: 0)
    (night,) = [each for each in found.budgets if each.name == "night"]
    gone = [point.spent_nano_usd for point in night.burn_down]

    assert len(gone) <= MOST_POINTS
    assert gone == sorted(gone)
    assert gone[-1] == night.spent_nano_usd == sum(range(days))


def test_a_month_is_foretold_from_its_days(told):
    web = told[0]["tenant", "web"]
    a_day = DAY / 3_100 * 3 / 4 * 10_000_000

    assert web.forecast.spend_nano_usd == pytest.approx(web.spent_nano_usd + 14.48 * a_day, rel=0.1)
    assert web.forecast.low_nano_usd <= web.forecast.spend_nano_usd <= web.forecast.high_nano_usd
    assert told[0]["tag", "night"].forecast is None


def test_a_budget_that_is_used_up_runs_out_now(told):
    web = told[0]["tenant", "web"]

    assert web.share > 1
    assert web.forecast.runs_out == "2026-11-16T12:30:00Z"
