"""A route that looks after its own learning, on a real ledger."""

from __future__ import annotations

import logging

import pytest

from gateway.learning.book import Book
from gateway.learning.duties import duties_of
from gateway.learning.steward import Steward, learning
from gateway.money.migrate import migrate_sqlite
from gateway.routers import build_routers
from policies.loader import parse_policy
from tests.support.policies import policy, remote
from tests.support.traffic import rows_of, traffic

FLOOR = {"target": {"max_quality_loss": 0.05}}


def parsed(**cascade):
    told = {"tiers": ["small", "large"], "confidence": "learned", "audit": {}, **cascade}
    models = {name: remote("http://127.0.0.1:1") for name in ("small", "large")}
    text = policy(models, {"auto": {"cascade": told}})
    return parse_policy(text, name="policy.yaml", env={})


@pytest.fixture
def url(tmp_path):
    migrate_sqlite(tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def book(url):
    book = Book(url)
    yield book
    book.close()


def steward(book, cascade=None, *, acts=True, told=None, wall=lambda: 1.0):
    checked = parsed(**(FLOOR if cascade is None else cascade))
    (duty,) = duties_of(checked)
    router = build_routers(checked)["auto"]
    tell = None if told is None else lambda *what: told.append(what)
    return Steward(duty, router, book, wall, acts=acts, tell=tell), router


async def settled(one):
    kinds = []
    while (step := await one.look()) is not None:
        kinds.append(step.kind)
    return kinds


async def test_route_walks_its_stages_writes_them_down_and_follows_them(book, caplog):
    caplog.set_level(logging.INFO)
    one, router = steward(book)
    other, others = steward(book, acts=False)
    assert not router.courses.may_serve
    book.add(list(rows_of(traffic(400))))

    assert await settled(one) == ["calibrated", "certified"]
    assert await settled(one) == []
    assert (router.courses.may_serve, router.courses.stage) == (True, "certified")
    assert [step.kind for step in book.steps("auto")] == ["calibrated", "certified"]
    assert "route auto is certified" in caplog.text
    assert not others.courses.may_serve
    assert await settled(other) == []
    assert others.courses == router.courses
    assert "route auto goes on after step 2, certified" in caplog.text
    looser, _ = steward(book, {"target": {"max_quality_loss": 0.2}})
    await looser.follow()
    assert "route auto begins anew: its 2 steps were for other tiers" in caplog.text


async def test_two_that_come_to_a_step_at_once_take_it_once(book):
    book.add(list(rows_of(traffic(120))))
    one, _ = steward(book)
    two, router = steward(book)
    await two.follow()
    stood = two.standing
    step, _ = two._due(stood)
    assert await settled(one) == ["calibrated"]

    assert not await two.take(step, stood)
    assert await settled(two) == []
    assert len(book.steps("auto")) == 1
    assert router.courses.stage == "calibrated"


async def test_started_anew_it_comes_up_where_it_stood(book, url):
    book.add(list(rows_of(traffic(400))))
    await settled(steward(book)[0])
    checked = parsed(**FLOOR)
    routers = build_routers(checked)
    async with learning(checked, routers, url, lambda: 1.0, acts=False) as (again,):
        assert routers["auto"].courses.may_serve
        assert again.standing.stage == "certified"


async def test_another_floor_begins_anew(book):
    book.add(list(rows_of(traffic(400))))
    await settled(steward(book)[0])
    strict, router = steward(book, {"target": {"max_quality_loss": 0.001}})
    await strict.follow()

    assert not router.courses.may_serve
    assert await settled(strict) == ["calibrated"]


@pytest.mark.parametrize(
    "cascade",
    [
        {"learning": {"automatic": False}},
        {"confidence": "logprob"},
        {"bundle": "bundles/auto", "audit": None},
    ],
)
def test_who_does_not_learn_by_itself_is_left_alone(cascade):
    assert duties_of(parsed(**cascade)) == []


async def test_outcomes_measured_against_another_reference_do_not_count(book):
    book.add(list(rows_of(traffic(400), reference="larger")))

    assert await settled(steward(book)[0]) == []


async def test_drafts_judged_without_their_own_signs_do_not_count(book):
    plain = [row for row in rows_of(traffic(400)) if row.model == "small"]
    book.add([type(row)(**{**_fields(row), "stats": "{}"}) for row in plain])

    assert await settled(steward(book)[0]) == []


def _fields(row):
    return {name: getattr(row, name) for name in row.__struct_fields__}


async def test_drafts_that_get_worse_end_their_serving_and_somebody_is_told(book):
    told = []
    now_s = [1.0]
    one, router = steward(book, told=told, wall=lambda: now_s[0])
    start = 2_000_000
    book.add(list(rows_of(traffic(400))))
    await settled(one)
    assert router.courses.may_serve
    book.add(list(rows_of(traffic(190, seed=5, start=start, fall=0.6))))
    now_s[0] = 3.0

    assert (await settled(one))[0] == "lost"
    assert not router.courses.may_serve
    ((route, kind, number, why),) = told
    assert (route, kind, number) == ("auto", "lost", 3)
    assert "audits ago" in why


async def test_version_heard_of_in_any_traffic_resets_a_model(book):
    checked = parsed(**FLOOR)
    (duty,) = duties_of(checked)
    router = build_routers(checked)["auto"]
    latest = {}
    one = Steward(duty, router, book, lambda: 1.0, acts=True, latest=lambda route: dict(latest))
    book.add(list(rows_of(traffic(400, version="v1"))))
    assert (await settled(one))[-1] == "certified"
    latest["small"] = ("v2",) * 3

    assert (await settled(one))[0] == "reset"
    assert one.standing.stage == "rules"
