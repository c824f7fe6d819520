"""How old an answer may be."""

from __future__ import annotations

import math

import pytest

from cache.freshness import ANY_AGE, Bounds, Freshness, read_bounds


@pytest.mark.parametrize(
    ("control", "bounds"),
    [
        ("", ANY_AGE),
        ("no-cache", ANY_AGE),
        ("max-age=60", Bounds(60.0)),
        ("Max-Age = 60, max-stale=5", Bounds(60.0, 5.0)),
        ('max-age="0"', Bounds(0.0)),
        ("max-stale", Bounds(None, math.inf)),
        ("max-age=-1", ANY_AGE),
        ("max-age=soon, private", ANY_AGE),
        ("max-age=1.5", ANY_AGE),
        ("s-maxage=9", ANY_AGE),
    ],
)
def test_cache_control_is_read_leniently(control: str, bounds: Bounds) -> None:
    assert read_bounds(control) == bounds


@pytest.mark.parametrize(
    ("bounds", "oldest"),
    [
        (ANY_AGE, 129),
        (Bounds(max_age=60), 60),
        (Bounds(max_age=200), 99),
        (Bounds(max_age=110, max_stale=20), 119),
        (Bounds(max_age=90, max_stale=20), 110),
        (Bounds(max_stale=0), 99),
        (Bounds(max_stale=10), 109),
        (Bounds(max_stale=math.inf), 129),
    ],
)
def test_a_request_says_how_old_its_answer_may_be(bounds: Bounds, oldest: int) -> None:
    freshness = Freshness(100, stale=30, bounds=bounds)

    assert max(age for age in range(200) if freshness.accepts(age)) == oldest
    assert not freshness.is_plain


def test_a_request_may_have_its_answer_kept_for_less_and_never_for_longer() -> None:
    assert Freshness(100, stale=30, bounds=Bounds(ttl=20)).keep_for == 20
    assert Freshness(100, stale=30, bounds=Bounds(ttl=500)).keep_for == 130


def test_an_answer_is_stale_from_its_time_to_live_on() -> None:
    freshness = Freshness(100, stale=30)

    assert freshness.keep_for == 130
    assert [freshness.is_stale(age) for age in (99.9, 100)] == [False, True]
    assert not Freshness(100, stale=30, only_fresh=True).accepts(100)
    assert Freshness(100).is_plain
