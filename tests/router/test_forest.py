from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from router.forest import Forest, ForestError, grow
from router.state import State


def _data(n=1_500, width=8, seed=0):
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(n, width)).astype(np.float32)
    rows[chance.random(rows.shape) < 0.1] = np.nan
    odds = 2 * np.nan_to_num(rows[:, 0]) - np.nan_to_num(rows[:, 1]) + chance.normal(size=n)
    return rows, (odds > 0).astype(float)


@pytest.fixture(scope="module")
def grown():
    return grow(*_data(), trees=30)


def test_a_forest_says_what_lightgbm_says(monkeypatch):
    kept = []
    train = lightgbm.train
    monkeypatch.setattr(
        lightgbm, "train", lambda *args, **named: kept.append(train(*args, **named)) or kept[0]
    )
    forest = grow(*_data(), trees=30)
    rows, _ = _data(seed=1)

    assert np.allclose(forest(rows), kept[0].predict(rows, raw_score=True), atol=1e-9)


def test_an_explanation_adds_up_to_what_is_said(grown):
    rows, _ = _data(seed=2)
    for row in rows[:20]:
        first, added = grown.explain(row)

        assert first + added.sum() == pytest.approx(grown(row[None])[0])


def test_a_rising_feature_never_lowers_the_outcome():
    rows, y = _data()
    forest = grow(rows, 1.0 - y, trees=30, rising={0: 1})
    probe = np.tile(rows[:1], (50, 1))
    probe[:, 0] = np.linspace(-3, 3, 50)

    assert (np.diff(forest(probe)) >= 0).all()


def test_a_forest_comes_back_from_its_state(grown):
    rows, _ = _data(seed=3)

    assert np.array_equal(Forest.from_state(grown.to_state())(rows), grown(rows))


def test_rows_of_another_width_are_refused(grown):
    with pytest.raises(ForestError, match="expected rows of 8 features"):
        grown(np.zeros((1, 7)))


def test_no_rows_give_nothing(grown):
    assert grown(np.zeros((0, 8))).shape == (0,)


def test_all_labels_alike_give_a_forest_all_the_same():
    rows, _ = _data(60)

    assert (grow(rows, np.ones(60), trees=5)(rows) > 2).all()


def _changed(grown, name, place, value):
    state = grown.to_state()
    array = np.array(state.arrays[name])
    array[place] = value
    return State(state.values, {**state.arrays, name: array})


@pytest.mark.parametrize(("name", "place", "value"), [
    ("left", 0, 0), ("right", 0, 10**6), ("feature", 0, 8), ("feature", 0, -1), ("roots", 0, -1),
    ("roots", 0, 10**6), ("value", 0, np.nan), ("threshold", 0, np.nan),
])  # fmt: skip
def test_trees_that_lead_astray_are_refused(grown, name, place, value):
    with pytest.raises(ForestError, match="train the bundle again"):
        Forest.from_state(_changed(grown, name, place, value))


@pytest.mark.parametrize("state", [State(), State(values={"width": 3})])
def test_what_is_no_forest_is_refused(state):
    with pytest.raises(ForestError, match="expected a width"):
        Forest.from_state(state)


def test_arrays_of_different_lengths_are_refused(grown):
    state = grown.to_state()
    short = {**state.arrays, "value": state.arrays["value"][:-1]}

    with pytest.raises(ForestError):
        Forest.from_state(State(state.values, short))
