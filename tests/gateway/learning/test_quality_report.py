from __future__ import annotations

import pytest

from gateway.learning.book import OutcomeRow
from gateway.learning.quality_report import quality_of, wilson


def row(number, *, served=True, drawn=True, quality=0.9, score=1.0, model="small"):
    given = ("auto", "t", "1", "", "large", "")
    return OutcomeRow(f"r{number}", model, number, 0, *given, served, drawn, quality, 0.5, score,
                      "exact", "stop", 1, 1, 1, 1, "{}")  # fmt: skip


def test_losses_are_counted_among_drawn_requests_alone():
    rows = [
        row(1),
        row(2, score=0.0),
        row(3, score=None),
        row(4, served=False, score=0.0),
        row(5, drawn=False, score=0.0),
        row(4, model="large", quality=None),
    ]
    found = quality_of("auto", rows)

    assert (found.drawn, found.losses, found.unknown) == (4, 1, 1)
    assert found.rate == pytest.approx(1 / 3)
    assert found.low == wilson(1, 4)[0]
    assert found.high == wilson(2, 4)[1]
    assert found.labels == {"exact": 4}
    (small,) = found.models
    assert (small.drafts, small.scored, small.mean_score) == (5, 4, 0.25)
    assert small.mean_quality == pytest.approx(0.9)


def test_of_nothing_nothing_is_known():
    found = quality_of("auto", [])

    assert (found.rate, found.low, found.high, found.models) == (None, 0.0, 1.0, ())


def test_interval_of_a_share_is_wilsons():
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    assert wilson(0, 50)[0] == pytest.approx(0.0)
    assert wilson(50, 50)[1] == pytest.approx(1.0)
