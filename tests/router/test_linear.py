"""The small fits, against what they must find."""

from __future__ import annotations

import numpy as np
import pytest

from router.linear import fit_logistic, logit, sigmoid


def test_fit_finds_the_coefficients_that_made_the_data_even_from_far_away():
    draw = np.random.default_rng(0)
    rows = np.column_stack([np.ones(20_000), draw.normal(size=(20_000, 2)) * 3])
    truth = np.array([0.7, -1.2, 0.4])
    right = (draw.random(20_000) < sigmoid(rows @ truth)).astype(float)

    found = fit_logistic(rows, right, towards=np.array([0.0, 5.0, -5.0]), ridge=1e-3)

    assert found == pytest.approx(truth, abs=0.1)


def test_fit_meets_the_mean_through_its_intercept():
    draw = np.random.default_rng(1)
    rows = np.column_stack([np.ones(3000), draw.normal(size=3000) * 4])
    share = draw.random(3000) * 0.3

    found = fit_logistic(rows, share, towards=np.zeros(2), ridge=0.1)

    assert sigmoid(rows @ found).mean() == pytest.approx(share.mean(), abs=1e-4)


def test_fit_without_rows_keeps_the_first_guess():
    towards = np.array([1.0, -2.0])

    assert (
        fit_logistic(np.zeros((0, 2)), np.zeros(0), towards=towards, ridge=1.0) == towards
    ).all()


def test_log_odds_are_bounded_and_come_back():
    shares = np.array([0.0, 0.2, 0.9, 1.0])

    assert np.isfinite(logit(shares)).all()
    assert sigmoid(logit(shares))[1:3] == pytest.approx([0.2, 0.9])
