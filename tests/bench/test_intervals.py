from __future__ import annotations

from bench.intervals import bootstrap


def test_an_interval_holds_its_mean_and_repeats_with_its_seed():
    values = [0.0, 1.0] * 100
    found = bootstrap(values)

    assert found.lower < found.mean == 0.5 < found.upper
    assert found == bootstrap(values)


def test_an_interval_is_about_as_wide_as_theory_says():
    found = bootstrap([0.0, 1.0] * 200)
    width = 2 * 1.96 * 0.5 / 400**0.5

    assert abs((found.upper - found.lower) / width - 1) < 0.15


def test_values_all_alike_leave_no_doubt():
    found = bootstrap([0.25] * 10)

    assert (found.lower, found.mean, found.upper) == (0.25, 0.25, 0.25)
    assert found.shown(100) == "25.0 \\[25.0, 25.0]"
    assert found.shown(100, digits=0, sign="+") == "+25 \\[+25, +25]"
