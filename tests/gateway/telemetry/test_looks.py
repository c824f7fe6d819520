"""A ledger that hangs costs a scrape what it would have told, and nothing else."""

from __future__ import annotations

import threading

import pytest

from gateway.money.errors import LedgerError
from gateway.telemetry.looks import Look


async def test_who_asks_while_a_look_hangs_does_without_and_starts_no_other():
    goes_on, looks = threading.Event(), []

    def hang():
        looks.append(1)
        goes_on.wait(20)
        return "found"

    look = Look(hang, within_s=0.01)
    assert [await look() for _ in range(3)] == [None, None, None]
    assert len(looks) == 1
    goes_on.set()
    patient = Look(hang)
    assert await patient() == "found"

    assert len(looks) == 2


@pytest.mark.parametrize("trouble", [LedgerError("gone"), ValueError("a bug")])
async def test_a_look_that_fails_finds_nothing_and_the_next_one_may(trouble, caplog):
    outcomes = [trouble, "found"]

    def look_up():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    look = Look(look_up)
    assert await look() is None
    assert "could not read the ledger" in caplog.text
    assert await look() == "found"
