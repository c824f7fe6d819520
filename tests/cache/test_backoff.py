"""Waits between attempts."""

from __future__ import annotations

from cache.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)

    assert [backoff.wait_after(0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_one_that_comes_back_only_to_fail_is_not_steady() -> None:
    backoff = Backoff(0.1, 1.0, steady_after_s=10)
    waits = [backoff.wait_after(9) for _ in range(3)]

    assert waits == [0.1, 0.2, 0.4]
    assert backoff.wait_after(10) == 0.1


def test_very_many_failures_do_not_overflow() -> None:
    backoff = Backoff()

    assert [backoff.wait_after(0) for _ in range(5000)][-1] == backoff.most_s
