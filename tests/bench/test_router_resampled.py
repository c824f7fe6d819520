from __future__ import annotations

import numpy as np
import pytest

from bench.router.resampled import Ranked, intervals
from router.metrics import apgr


@pytest.mark.parametrize("levels", [10_000, 7, 1])
def test_counts_tell_the_apgr_of_the_queries_repeated_so_often(levels):
    draw = np.random.default_rng(levels)
    small, large = (draw.random(401) < share for share in (0.4, 0.7))
    rank = draw.integers(0, levels, 401) / levels
    rows = draw.integers(0, 401, 401)
    ranked = Ranked(small.astype(float), large.astype(float), rank)

    found = ranked.apgr(np.bincount(rows, minlength=401))

    assert found == pytest.approx(apgr(small[rows], large[rows], rank[rows]))


def test_differences_are_paired_by_resample():
    draw = np.random.default_rng(3)
    small, large = (draw.random(300) < share for share in (0.4, 0.7))
    rank = draw.random(300)
    ways = [[rank], [rank], [draw.random(300)]]

    (_, none), (alike, same), (_, other) = intervals(small * 1.0, large * 1.0, ways, 0)

    assert none is None
    assert same is not None
    assert (same.lower, same.value, same.upper) == (0.0, 0.0, 0.0)
    assert alike.lower < alike.value < alike.upper
    assert other is not None
    assert other.lower < other.value < other.upper
