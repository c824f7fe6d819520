from __future__ import annotations

import numpy as np
import pytest

from router.forest import ForestError
from router.quality.state import QualityError
from router.quality.trees import FEWEST, Trees, rows_of
from router.state import State


@pytest.fixture(scope="module")
def rows():
    """Two features that mean most together, each three times, and one that means nothing."""
    found = np.random.default_rng(0).integers(0, 2, (400, 3))
    return found[:, [0, 1, 0, 1, 0, 1, 2]].astype(np.float32)


@pytest.fixture(scope="module")
def scores(rows):
    both = rows[:, 0] * rows[:, 1].astype(float)
    rare = np.where(np.arange(400) < FEWEST - 1, both, np.nan)
    return np.column_stack([both, rare])


@pytest.fixture(scope="module")
def trees(rows, scores):
    return Trees.fit(rows, scores)


def test_what_two_features_mean_together_is_learnt(trees, rows, scores):
    found = trees.mix(rows, np.full((400, 2), 0.5))[:, 0]

    assert found[scores[:, 0] == 1].mean() > found[scores[:, 0] == 0].mean() + 0.1


def test_a_model_of_few_scores_keeps_the_blend(trees, rows):
    mixed = np.random.default_rng(1).random((400, 2))

    assert (trees.mix(rows, mixed)[:, 1] == mixed[:, 1]).all()


def test_no_trees_are_grown_where_no_model_has_scores_enough(rows, scores):
    assert Trees.fit(rows[:50], scores[:50]) is None


def test_trees_come_back_from_disk_as_they_were(trees, rows):
    kept = Trees.from_state(trees.to_state(), width=7, models=2)
    mixed = np.full((400, 2), 0.3)

    assert (kept.mix(rows, mixed) == trees.mix(rows, mixed)).all()


def test_trees_of_other_features_or_models_are_refused(trees):
    with pytest.raises(QualityError, match="over 8 features"):
        Trees.from_state(trees.to_state(), width=8, models=2)
    with pytest.raises(QualityError):
        Trees.from_state(trees.to_state(), width=7, models=7)
    with pytest.raises(ForestError):
        Trees.from_state(State(parts={"forest": State()}), width=7, models=2)


def test_rows_hold_estimates_structure_and_topics(rows):
    assert rows_of(np.ones((400, 2)), rows, np.zeros((400, 5))).shape == (400, 14)
