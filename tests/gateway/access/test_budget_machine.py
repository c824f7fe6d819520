"""A purse against a model of it, under any order of requests, ends and windows."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gateway.access.meters import Claim, Purse, Refused, Taken
from gateway.access.stores.memory import MemoryLimits

LIMIT = 1000


def purse(window: int) -> Purse:
    """Return the purse of one of the windows of the budget."""
    start = window * 3600.0
    return Purse(
        f"key:a:hour:{window}", "key:a:hour", ("key", "a"), "the budget of key 'a'", LIMIT,
        "refuse", True, start, start + 3600,
    )  # fmt: skip


class Budget(RuleBasedStateMachine):
    """What is spent and held of a window never passes its sum, and nothing is held for ever."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryLimits(lambda: 0.0)
        self.window = 0
        self.held: dict[int, int] = {}
        self.spent: dict[int, int] = {}
        self._open(0, 0)

    def _open(self, window: int, seed: int) -> None:
        coroutine = self.store.seed(purse(window), seed)
        with suppress(StopIteration):
            coroutine.send(None)
        self.held[window], self.spent[window] = 0, seed

    @rule(target=running, amount=st.integers(0, LIMIT + 10))
    def ask(self, amount: int) -> tuple[int, int] | None:
        claim = Claim((), (), ((purse(self.window), amount),))
        result = self.store.take_now(claim)
        left = LIMIT - self.spent[self.window] - self.held[self.window]
        assert isinstance(result, Taken if amount <= left else Refused)
        if isinstance(result, Refused):
            helps = self.spent[self.window] + amount <= LIMIT
            assert (result.wait_s is None) == helps
            return None
        self.held[self.window] += amount
        return self.window, amount

    @rule(which=consumes(running), share=st.floats(0, 1))
    def end(self, which: tuple[int, int] | None, share: float) -> None:
        if which is not None:
            window, amount = which
            cost = int(amount * share)
            claim = Claim((), (), ((purse(window), amount),))
            self.store.settle(claim, tokens=0, nano_usd=cost)
            self.held[window] -= amount
            self.spent[window] += cost

    @rule(seed=st.integers(0, LIMIT))
    def next_window(self, seed: int) -> None:
        self.window += 1
        self._open(self.window, seed)

    @invariant()
    def agrees_with_the_model(self) -> None:
        spent, held = self.store.used(purse(self.window))
        assert (spent, held) == (self.spent[self.window], self.held[self.window])
        assert spent + held <= LIMIT


TestBudget = Budget.TestCase
