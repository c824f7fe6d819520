from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.resilience.breaker import SLOTS, Breaker, Ticket, Window
from policies.resilience import BreakerRules

RULES = BreakerRules(failures=0.5, window=10.0, min_calls=4, consecutive=3, open_for=5.0)


def _run(breaker: Breaker, results: str, now: float = 0.0) -> None:
    """Make one call after the other: `+` ends well, `-` fails."""
    for result in results:
        ticket = breaker.admit(now)
        assert ticket is not None, "it was open already"
        (breaker.succeed if result == "+" else breaker.fail)(ticket, now)


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("", "closed"),
        ("--", "closed"),
        ("---", "open"),
        ("--+-", "open"),
        ("-+-+", "closed"),
        ("-+--", "open"),
        ("-++-", "open"),
        ("+-++-", "closed"),
        ("+++++--", "closed"),
        ("+++++---", "open"),
    ],
)
def test_it_opens_by_share_and_by_failures_in_a_row(results: str, state: str) -> None:
    breaker = Breaker(RULES)

    _run(breaker, results)

    assert breaker.state == state


def test_failures_that_lie_far_apart_do_not_open_it() -> None:
    breaker = Breaker(RULES.model_copy(update={"consecutive": 100}))

    for index in range(50):
        _run(breaker, "-", now=index * 4.0)

    assert breaker.state == "closed"


def test_an_open_breaker_admits_nobody_until_its_time_is_up_and_then_one() -> None:
    breaker = Breaker(RULES)
    _run(breaker, "---", now=100.0)

    assert breaker.admit(104.9) is None
    assert breaker.wait_s(103.0) == 2.0
    probe = breaker.admit(105.0)
    assert probe is not None
    assert probe.is_probe
    assert [breaker.admit(200.0) for _ in range(3)] == [None] * 3


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = Breaker(RULES)
    _run(breaker, "---")
    probe = breaker.admit(5.0)
    assert probe is not None

    breaker.answered(probe)

    assert breaker.state == "closed"
    assert not breaker.admit(5.0).is_probe  # type: ignore[union-attr]


def test_a_probe_that_fails_opens_it_for_longer_each_time_up_to_a_bound() -> None:
    breaker = Breaker(RULES, growth=2.0)
    _run(breaker, "---")

    now, waits = 0.0, []
    for _ in range(8):
        now += breaker.wait_s(now)
        probe = breaker.admit(now)
        assert probe is not None
        breaker.fail(probe, now)
        waits.append(breaker.wait_s(now))

    assert waits == [10.0, 20.0, 40.0, 80.0, 100.0, 100.0, 100.0, 100.0]


def test_a_probe_whose_client_left_makes_room_for_another() -> None:
    breaker = Breaker(RULES)
    _run(breaker, "---")
    probe = breaker.admit(5.0)
    assert probe is not None

    breaker.drop(probe)

    assert breaker.state == "half_open"
    assert breaker.admit(5.0) is not None


def test_results_from_before_it_opened_change_nothing() -> None:
    breaker = Breaker(RULES)
    late = [breaker.admit(0.0) for _ in range(10)]
    _run(breaker, "---")

    for ticket in late[:5]:
        assert ticket is not None
        breaker.fail(ticket, 4.0)
    for ticket in late[5:]:
        assert ticket is not None
        breaker.succeed(ticket, 4.0)

    assert breaker.state == "open"
    assert breaker.wait_s(4.0) == 1.0


def test_a_forced_call_that_is_answered_closes_it_and_one_that_fails_does_not_prolong() -> None:
    breaker = Breaker(RULES)
    _run(breaker, "---")

    breaker.fail(breaker.force(), 3.0)
    assert breaker.wait_s(3.0) == 2.0
    breaker.succeed(breaker.force(), 4.0)
    assert breaker.state == "closed"


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80))
def test_a_window_counts_what_a_list_of_all_calls_counts(steps: list[tuple[float, bool]]) -> None:
    window, now, calls = Window(10.0), 0.0, []
    for pause, failed in steps:
        now += pause
        window.add(now, failed=failed)
        calls.append((int(now / 1.0), failed))
        kept = [failed for number, failed in calls if number > int(now / 1.0) - SLOTS]
        assert (window.calls, window.failures) == (len(kept), sum(kept))


class BreakerMachine(RuleBasedStateMachine):
    """Callers that come, end well, fail and leave in any order, against a plain model."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker(RULES, growth=2.0)
        self.now = 0.0
        self.under_way: list[Ticket] = []
        self.state = "closed"
        self.era = 0
        self.log: list[tuple[float, bool]] = []
        self.opened_at = self.open_for = 0.0
        self.next_open_for = RULES.open_for
        self.probing = False

    def _becomes(self, state: str) -> None:
        self.state, self.era, self.log, self.probing = state, self.era + 1, [], False
        if state == "open":
            self.opened_at, self.open_for = self.now, self.next_open_for
        elif state == "closed":
            self.next_open_for = RULES.open_for

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def come(self) -> None:
        ticket = self.breaker.admit(self.now)

        if self.state == "open" and self.now >= self.opened_at + self.open_for:
            self._becomes("half_open")
        expects = self.state == "closed" or (self.state == "half_open" and not self.probing)
        assert (ticket is not None) == expects
        if ticket is not None:
            assert ticket.is_probe == (self.state == "half_open")
            self.probing = ticket.is_probe
            self.under_way.append(ticket)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), end=st.sampled_from(["succeed", "fail", "drop"]))
    def end(self, data: st.DataObject, end: str) -> None:
        ticket = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if end == "drop":
            self.breaker.drop(ticket)
        else:
            method: Callable[[Ticket, float], None] = getattr(self.breaker, end)
            method(ticket, self.now)

        if ticket.era != self.era:
            return
        if end == "drop":
            self.probing = self.probing and not ticket.is_probe
        elif self.state == "half_open":
            if end == "fail":
                self.next_open_for = min(self.next_open_for * 2, RULES.open_for * 20)
            self._becomes("closed" if end == "succeed" else "open")
        else:
            self._count(failed=end == "fail")

    def _count(self, *, failed: bool) -> None:
        self.log.append((self.now, failed))
        recent = [f for at, f in self.log if int(at / 1.0) > int(self.now / 1.0) - SLOTS]
        in_a_row = len(self.log) - max(
            (i + 1 for i, (_, f) in enumerate(self.log) if not f), default=0
        )
        is_share = len(recent) >= RULES.min_calls and sum(recent) / len(recent) >= RULES.failures
        if failed and (in_a_row >= RULES.consecutive or is_share):
            self._becomes("open")

    @invariant()
    def agrees_with_the_model(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state == self.state


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
