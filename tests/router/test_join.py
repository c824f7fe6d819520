"""A model that joins what was learnt of others, by some hundred probes."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from router.costs import Price
from router.drafts import Drafts
from router.guarantee import Floor
from router.join import JoinError, join
from router.learn_table import LearnTable
from router.learnt import Learnt, Operating
from router.outcomes import Outcomes
from router.targets import Mix, PriceOfQuality, QualityLoss, Spend
from router.train import Task, records_at, train
from router.value_fit import simulate
from tests.support.sums import LARGE, MINI, MINI_PRICE, PRICES, SMALL, outcomes, probes

TODAY = date(2026, 11, 21)
CHEAP = Price(**MINI_PRICE, as_of=TODAY)
TRIO = (SMALL, LARGE, MINI)
RATE = 0.03
WORDS = [f"{first}{last}" for first in ("ro", "la", "mi", "tu") for last in ("ber", "gon", "sel",
         "dam", "pik", "vor", "nat", "lum", "cre", "fas")]  # fmt: skip


def read(rows, models=TRIO):
    rows = [{**row, "prompt": wordy(row["query_id"], row["prompt"])} for row in rows]
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    return LearnTable.from_rows(Outcomes({**columns, "sample": [0] * len(rows)}), models)


def wordy(query, prompt):
    """Put a few words of its own before a question: questions alike but for numbers are one."""
    words = random.Random(query).choices(WORDS, k=6)
    return f"Of {' and '.join(words)}. {prompt}"


@pytest.fixture(scope="module")
def trained():
    prices = {name: Price(**each, as_of=TODAY) for name, each in PRICES.items()}
    task = Task((SMALL, LARGE), LARGE, PriceOfQuality(1e-4), prices)
    return train(read(outcomes(120, seed=1), (SMALL, LARGE)), task)


@pytest.fixture(scope="module")
def learnt(trained):
    return trained.learnt


@pytest.fixture(scope="module")
def fresh():
    return read(probes(120, seed=5))


@pytest.fixture(scope="module")
def joined(trained, fresh):
    return join(trained.learnt, trained.operating, fresh, CHEAP)


@pytest.fixture(scope="module")
def later():
    return read(probes(150, seed=6))


def run_of(learnt, table, rate=RATE):
    table = table.of_models(learnt.models)
    records = records_at(learnt, table, Drafts.read(table))
    value = learnt.values["quality"]
    return simulate(value, learnt.beliefs, records, rate), records


def assert_same(one, other):
    """Compare two states, byte for byte."""
    assert one.values == other.values
    assert one.texts == other.texts
    assert one.arrays.keys() == other.arrays.keys()
    for name in one.arrays:
        assert np.asarray(one.arrays[name]).tobytes() == np.asarray(other.arrays[name]).tobytes()
    assert one.parts.keys() == other.parts.keys()
    for name in one.parts:
        assert_same(one.parts[name], other.parts[name])


def test_estimates_of_the_others_stay_byte_for_byte(learnt, joined, later):
    before, after = learnt.quality, joined.learnt.quality
    kept = after.to_state()
    parts = {name: part for name, part in kept.parts.items() if not name.startswith("adopted")}

    values = {**kept.values, "adopted": []}
    assert before.bare is not None
    assert_same(replace(kept, parts=parts, values=values), before.to_state())
    found = after.estimate(later.queries)
    assert found.models == TRIO
    known = before.estimate(later.queries).quality
    assert found.quality[:, :2].tobytes() == known.tobytes()


def test_what_is_said_of_the_others_drafts_stays_as_it_was(learnt, joined, later):
    before, after = learnt.scorer, joined.learnt.scorer
    for part in ("words", "forest", "calibrators"):
        assert_same(after.to_state().parts[part], before.to_state().parts[part])
    drafts = Drafts.read(later)
    routes = [None] * len(later)
    few = learnt.quality.estimate(later.queries).quality
    wide = joined.learnt.quality.estimate(later.queries).quality

    for calls in ((0,), (1,), (0, 1)):
        found = after.quality(drafts, wide, calls, routes)
        pair = Drafts.read(later.of_models((SMALL, LARGE)))
        np.testing.assert_array_equal(found, before.quality(pair, few, calls, routes))


def test_costs_and_beliefs_of_the_others_stay(learnt, joined, later):
    before, after = learnt.costs, joined.learnt.costs
    found = after.estimate(later.queries, joined.learnt.prices)
    known = before.estimate(later.queries, learnt.prices)

    np.testing.assert_array_equal(found.usd[:, :2], known.usd)
    np.testing.assert_array_equal(found.output_p90[:, :2], known.output_p90)
    assert found.usd[:, 2].mean() == pytest.approx((12 * 0.15 + 8 * 0.3) / 1e6, rel=0.2)
    np.testing.assert_array_equal(joined.learnt.beliefs.move[0], learnt.beliefs.move[0])
    np.testing.assert_array_equal(joined.learnt.beliefs.harm[0], learnt.beliefs.harm[0])


def test_newcomer_that_is_good_answers_in_place_of_the_dear_reference(learnt, joined, later):
    before, pair = run_of(learnt, later)
    after, trio = run_of(joined.learnt, later)

    assert before.called[:, 1].mean() > 0.2
    assert after.called[:, 1].mean() < 0.1
    assert (after.served == 2).mean() > 0.2
    assert after.usd.mean() < 0.5 * before.usd.mean()
    assert after.quality(trio).mean() >= before.quality(pair).mean() - 0.02


def test_newcomer_that_is_cheapest_and_good_is_asked_first(trained, fresh, later):
    made = join(trained.learnt, trained.operating, fresh, Price(0.05, 0.1, TODAY))
    before, _ = run_of(trained.learnt, later, rate=2.0)
    after, trio = run_of(made.learnt, later, rate=2.0)

    assert before.called[:, 0].mean() > 0.9
    assert after.called[:, 0].mean() < 0.6
    assert (after.served == 2).mean() > 0.4
    assert after.usd.mean() < before.usd.mean()
    assert after.quality(trio).mean() > 0.9


def test_newcomer_that_is_dear_and_bad_is_left_alone(trained, later):
    bad = read(probes(120, seed=5, right=0.05))
    made = join(trained.learnt, trained.operating, bad, Price(4.0, 8.0, TODAY))
    run, _ = run_of(made.learnt, later)

    assert run.called[:, 2].mean() < 0.05


def test_joined_cascade_is_the_same_after_a_stay_on_disk(joined, later):
    again = Learnt.from_state(joined.learnt.to_state())
    one, _ = run_of(joined.learnt, later)
    other, _ = run_of(again, later)

    assert again.scorer.joined == 1
    assert (one.served == other.served).all()


def test_second_newcomer_joins_beside_the_first(joined, trained):
    both = list(probes(100, seed=7))
    third = [row for row in probes(100, seed=7, name="more") if row["model"] == "more"]
    table = read([*both, *third], (*TRIO, "more"))
    made = join(joined.learnt, joined.operating, table, CHEAP)

    assert made.learnt.models == (*TRIO, "more")
    assert made.learnt.scorer.joined == 2
    found = made.learnt.quality.estimate(table.queries[:5]).quality
    known = joined.learnt.quality.estimate(table.queries[:5]).quality
    np.testing.assert_array_equal(found[:, :3], known)


def test_without_replies_a_newcomer_is_not_judged(trained):
    rows = [
        {**row, "response": None} if row["model"] == MINI else row for row in probes(80, seed=5)
    ]
    made = join(trained.learnt, trained.operating, read(rows), CHEAP)

    assert made.learnt.values["quality"].lineup.judged == {0}
    assert made.newcomer.judged is None


def test_operating_point_stays_or_is_what_is_asked(trained, joined, fresh):
    def at(target):
        return join(trained.learnt, trained.operating, fresh, CHEAP, target=target).operating

    assert joined.operating == replace(trained.operating, early=None)
    value = joined.learnt.values["quality"]
    assert value.reference_usd == trained.learnt.values["quality"].reference_usd
    assert at(Spend(0.004)).mix.rate > at(Spend(0.2)).mix.rate
    assert at(PriceOfQuality(1e-3)).mix.rate < trained.operating.mix.rate


@pytest.mark.parametrize("asked", [None, QualityLoss(Floor(0.1, 0.95))])
def test_under_a_floor_nothing_is_certified_of_the_longer_lineup(trained, fresh, asked):
    before = Operating("floor", Mix(0.1, 0.1), Floor(0.1, 0.95), 0.2)
    made = join(trained.learnt, before, fresh, CHEAP, target=asked)

    assert made.operating == Operating("floor", None, Floor(0.1, 0.95))
    assert len(made.path) == 40
    assert list(made.path) == sorted(made.path)


def test_prompts_that_it_was_trained_on_are_known_again(trained, joined):
    made = join(trained.learnt, trained.operating, read(probes(100, seed=1)), CHEAP)

    assert made.newcomer.met > 0.9
    assert joined.newcomer.met < 0.1


def few(rows):
    return rows[: 3 * 20]


def unscored(name):
    return lambda rows: [
        {**row, "score": None} if row["model"] == name and at > 30 else row
        for at, row in enumerate(rows)
    ]


def unheard(rows):
    return [{**row, "response": None} if row["model"] == SMALL else row for row in rows]


@pytest.mark.parametrize(
    ("spoilt", "complaint"),
    [
        (few, "at least 50 scored probes of 'mini'.*found 20"),
        (unscored(MINI), "at least 50 scored probes of 'mini'"),
        (unscored(LARGE), "reference is large.*found 10; .*large 10"),
        (unheard, r"reply of those that are judged \(small\), found 0"),
    ],
    ids=["few", "unscored", "no reference", "no replies"],
)
def test_too_little_to_join_by_is_refused(trained, spoilt, complaint):
    table = read(spoilt(list(probes(100, seed=5))))

    with pytest.raises(JoinError, match=complaint):
        join(trained.learnt, trained.operating, table, CHEAP)


def test_model_that_is_there_already_does_not_join(joined, fresh):
    with pytest.raises(JoinError, match="in the bundle already"):
        join(joined.learnt, joined.operating, fresh, CHEAP)


def test_newcomer_without_token_counts_writes_what_the_others_write(trained):
    rows = [
        {**row, "completion_tokens": None, "prompt_tokens": None} if row["model"] == MINI else row
        for row in probes(80, seed=5)
    ]
    table = read(rows)
    made = join(trained.learnt, trained.operating, table, CHEAP)
    mean, high = made.learnt.costs.lengths(table.queries)

    np.testing.assert_allclose(mean[:, 2], mean[:, :2].mean(1), rtol=0.1)
    assert np.isfinite(high).all()
