"""A client that reads is left alone however slow it is; one that does not is found out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outflow import LEAST_READ, Outflow

WITHIN_S = 60.0


def first_stuck(waiting):
    """Return which look, one every ten seconds, finds a client stuck; None if none does."""
    outflow = Outflow(WITHIN_S)
    stuck = (n for n, left in enumerate(waiting) if outflow.is_stuck(left, 10.0 * n))
    return next(stuck, None)


def test_a_client_that_reads_nothing_is_stuck_after_its_time():
    assert first_stuck([5_000_000] * 10) == 6


def test_a_writer_that_goes_on_filling_the_buffer_makes_no_reader():
    assert first_stuck(range(1000, 60_000, 1000)) == 6


def test_a_client_that_takes_all_from_time_to_time_is_not_stuck():
    assert first_stuck([9000, 9000, 9000, 9000, 9000, 0] * 20) is None


@pytest.mark.parametrize("step", [LEAST_READ, 5 * LEAST_READ])
def test_a_slow_reader_of_a_long_answer_is_not_stuck(step):
    left = [10_000_000 - step * (n // 5) for n in range(5 * (10_000_000 // step))]

    assert first_stuck(left) is None


def test_a_trickle_is_no_reading():
    assert first_stuck([10_000_000 - n for n in range(20)]) == 6


def test_a_writer_that_may_go_on_has_a_reader():
    outflow = Outflow(WITHIN_S)
    found = []
    for n in range(30):
        found.append(outflow.is_stuck(60_000, 10.0 * n))
        if n % 5 == 4:
            outflow.went_on()

    assert not any(found)


@given(st.lists(st.integers(0, 20 * LEAST_READ), min_size=1, max_size=40))
def test_what_is_held_is_held_no_longer_than_the_bound(sizes):
    left = sorted(sizes, reverse=True)  # nothing is added: how slowly may it be read?
    looks = [size for size in left if size for _ in range(3)]
    most = WITHIN_S * (left[0] / LEAST_READ + 1)

    outflow = Outflow(WITHIN_S)
    held = [outflow.is_stuck(size, 10.0 * n) for n, size in enumerate(looks)]
    assert any(held) or 10.0 * len(looks) <= most + 10.0
