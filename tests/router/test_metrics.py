from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router.metrics import (
    Frontier,
    MetricError,
    apgr,
    aurc,
    auroc,
    brier,
    calibration_error,
    interval,
    pair_curve,
)

SMALL = np.array([1.0, 1, 0, 0, 1, 0, 1, 0, 1, 0])
LARGE = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 0, 1])


def test_pair_curve_runs_from_the_small_model_to_the_large():
    curve = pair_curve(SMALL, LARGE, np.arange(10.0))

    assert (curve.share[0], curve.share[-1]) == (0.0, 1.0)
    assert curve.quality[0] == SMALL.mean()
    assert curve.gap_recovered[-1] == pytest.approx(1.0)
    assert len(curve.share) == 11


def test_calling_where_it_pays_first_recovers_the_gap_early():
    by_gain = pair_curve(SMALL, LARGE, (LARGE - SMALL) * 10 + np.arange(10) * 0.01)

    assert by_gain.apgr > 0.9
    assert by_gain.cpt(0.5) == pytest.approx(0.2)
    assert by_gain.cpt(1.0) <= 0.4
    assert apgr(SMALL, LARGE, SMALL - LARGE) < 0.2


def test_cpt_stays_within_the_curve():
    curve = pair_curve(SMALL, LARGE, np.arange(10.0))

    assert curve.cpt(-1.0) == 0.0
    assert curve.cpt(9.0) == 1.0


def test_a_rank_that_says_nothing_is_worth_half_on_average():
    chance = np.random.default_rng(0)
    found = [apgr(SMALL, LARGE, chance.permutation(10)) for _ in range(400)]

    assert np.mean(found) == pytest.approx(0.5, abs=0.03)


def test_a_gap_of_nothing_and_nan_are_refused():
    with pytest.raises(MetricError, match="different quality"):
        apgr(SMALL, SMALL, np.arange(10))
    with pytest.raises(MetricError, match="found NaN"):
        apgr(SMALL, LARGE, np.full(10, np.nan))
    with pytest.raises(MetricError, match="an empty list"):
        brier([], [])
    with pytest.raises(MetricError, match="one of them alone"):
        auroc([0.1, 0.2], [True, True])


@given(arrays(np.int64, 12, elements=st.integers(0, 4)), arrays(np.bool_, 12))
def test_auroc_is_the_share_of_pairs_in_order(score, positive):
    ones, zeros = score[positive], score[~positive]
    if not len(ones) or not len(zeros):
        return
    pairs = [(a > b) + (a == b) / 2 for a in ones for b in zeros]

    assert auroc(score, positive) == pytest.approx(np.mean(pairs))


def test_aurc_is_low_where_losses_come_last():
    assert aurc([0.9, 0.8, 0.1], [0, 0, 1]) == pytest.approx(1 / 9)
    assert aurc([0.1, 0.8, 0.9], [1, 0, 1]) > 1 / 9


def test_calibration_error_sees_overconfidence_and_not_honesty():
    honest = np.repeat([0.1, 0.9], 10)
    came = np.array([1] + [0] * 9 + [1] * 9 + [0], dtype=float)

    assert calibration_error(honest, came) == pytest.approx(0.0)
    assert calibration_error(np.full(20, 1.0), came) == pytest.approx(0.5)
    assert brier([0.5, 1.0], [0.0, 1.0]) == pytest.approx(0.125)


FRONTIER = Frontier(np.array([1.0, 2.0, 3.0, 4.0, 2.5]), np.array([0.5, 0.55, 0.8, 0.9, 0.4]))


def test_hull_keeps_what_mixing_cannot_beat():
    hull = FRONTIER.hull()

    assert hull.cost.tolist() == [1.0, 3.0, 4.0]
    assert hull.quality.tolist() == [0.5, 0.8, 0.9]


def test_cost_at_a_quality_is_read_off_the_hull():
    assert FRONTIER.cost_at(0.65) == pytest.approx(2.0)
    assert FRONTIER.cost_at(0.1) == 1.0
    assert np.isnan(FRONTIER.cost_at(0.95))


def test_aiq_counts_the_range_nothing_can_be_had_for():
    assert FRONTIER.aiq(1.0, 3.0) == pytest.approx(0.65)
    assert FRONTIER.aiq(0.0, 1.0) == 0.0
    assert FRONTIER.aiq(4.0, 8.0) == pytest.approx(0.9)
    with pytest.raises(MetricError, match="range of cost"):
        FRONTIER.aiq(2.0, 2.0)


def test_interval_holds_the_mean_and_shrinks_with_more_rows():
    few, lots = np.arange(20) % 2.0, np.arange(2000) % 2.0
    wide = interval(lambda rows: few[rows].mean(), 20, resamples=200)
    narrow = interval(lambda rows: lots[rows].mean(), 2000, resamples=200)

    assert wide.lower < 0.5 < wide.upper
    assert narrow.upper - narrow.lower < wide.upper - wide.lower
    assert f"{narrow:.2f}".startswith("0.50 [0.4")
