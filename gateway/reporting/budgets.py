"""How every budget stands: what is spent, set aside and foretold in its present window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.access.accounts import Account
from gateway.access.keys import Caller
from gateway.access.meters import Purse, Scope
from gateway.money.cells import HOUR_US
from gateway.money.databases import reading
from gateway.money.forecast import Foretold, foretell
from gateway.money.periods import NEVER_US, period, sums
from gateway.money.price import shown_usd
from gateway.money.reports import tags_of
from gateway.reporting.shapes import MOST_BUDGETS, Budgets, BudgetState, BurnPoint, Forecast
from gateway.reporting.window import iso
from policies.limits import Budget, Limits

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from policies.schema import Policy

MOST_POINTS = 100
"""Of what is left of one budget; a window without end would have more each day."""
_LOOK_BACK = {"hour": 48, "day": 14 * 24, "month": 28 * 24, "total": 28 * 24}
"""Hours before now that a forecast is drawn from."""
_STEP = {"hour": 1, "day": 1, "month": 24, "total": 24}
"""Hours of a step, by the window."""
_VIEW = {"tag": "tags"}
Steps = Mapping[str, Mapping[int, int]]
"""Nano-dollars by name and by the hour with which a step begins."""
Held = Callable[[Purse], int | None]


@dataclass(frozen=True, slots=True)
class _Written:
    """One budget of one account, in its present window."""

    kind: str
    name: str
    budget: Budget
    purse: Purse

    @property
    def since_us(self) -> int:
        return int(self.purse.start * 1_000_000)

    @property
    def end_us(self) -> int | None:
        return None if self.purse.end == float("inf") else int(self.purse.end * 1_000_000)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one budget stands; `reserved_nano_usd` is None where others may hold some of it."""

    scope: str
    name: str
    per: str
    at_limit: str
    limit_nano_usd: int
    spent_nano_usd: int
    reserved_nano_usd: int | None


def standing(
    url: str, policy: Policy, callers: Iterable[Caller], *, now_s: float, held: Held
) -> list[Standing]:
    """Return how every budget stands, fullest first, without forecasts. Raises LedgerError.

    Of budgets that differ in nothing that is told here, only the fullest.
    """
    found: dict[tuple[str, str, str, str], Standing] = {}
    with reading(url) as connection:
        spent = _Spent(connection, url, now_s)
        for each in _fullest(policy, callers, spent, held, now_s):
            labels = (each.kind, each.name, each.budget.per, each.budget.at_limit)
            sums = (each.purse.nano_usd, spent.of(each), held(each.purse))
            found.setdefault(labels, Standing(*labels, *sums))
    return list(found.values())


def budgets(
    url: str,
    policy: Policy,
    callers: Iterable[Caller],
    *,
    now_s: float,
    held: Held,
    most: int = MOST_BUDGETS,
) -> Budgets:
    """Return the fullest budgets. `held` tells what is set aside. Raises LedgerError.

    A budget of every key is told of the keys that have spent of it, or are about to.
    """
    with reading(url) as connection:
        spent = _Spent(connection, url, now_s)
        ordered = _fullest(policy, callers, spent, held, now_s)
        return Budgets(
            budgets=tuple(_state(each, spent, held) for each in ordered[:most]),
            left_out=max(0, len(ordered) - most),
        )


def _fullest(
    policy: Policy, callers: Iterable[Caller], spent: _Spent, held: Held, now_s: float
) -> list[_Written]:
    written = list(_written(policy, callers, spent, held, now_s))
    shares = [(spent.of(each) / max(1, each.purse.nano_usd), each) for each in written]
    return [each for _, each in sorted(shares, key=lambda s: (-s[0], s[1].name))]


class _Spent:
    """What was spent, asked once for each kind of name and each window."""

    def __init__(self, connection: Connection, url: str, now_s: float) -> None:
        self._connection = connection
        self._url = url
        self.now_us = int(now_s * 1_000_000)
        self._known: dict[tuple[str, int, int], Steps] = {}
        self._totals: dict[tuple[str, int], Mapping[str, int]] = {}

    def of(self, each: _Written) -> int:
        """Return what is spent in a budget's window."""
        return self.totals(each.kind, each.since_us).get(each.name, 0)

    def totals(self, kind: str, since_us: int) -> Mapping[str, int]:
        """Return what was spent since then, by name: one row of each, however long ago."""
        key = (kind, since_us)
        if key not in self._totals:
            found: dict[str, int] = defaultdict(int)
            whole = period(self._connection, self._url, since_us)
            cells = whole.cells(_VIEW.get(kind, kind))
            for row in sums(self._connection, cells, cells.c.name):
                for name in _names(kind, row.name):
                    found[name] += _most(row)
            self._totals[key] = found
        return self._totals[key]

    def steps(self, kind: str, since_us: int, step: int) -> Steps:
        """Return what was spent since then, by name and step."""
        key = (kind, since_us, step)
        if key not in self._known:
            self._known[key] = self._read(kind, since_us, step)
        return self._known[key]

    def _read(self, kind: str, since_us: int, step: int) -> Steps:
        cells = period(self._connection, self._url, since_us).cells(
            _VIEW.get(kind, kind), step=step
        )
        begins = (cells.c.hour // step * step).label("begins")
        found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        for row in sums(self._connection, cells, begins, cells.c.name):
            for name in _names(kind, row.name):
                found[name][int(row.begins)] += _most(row)
        return found


def _names(kind: str, name: str) -> Iterable[str]:
    return tags_of(name) if kind == "tag" else (name,)


def _most(row: Any) -> int:
    """Return what may have been spent: admission counts what nobody reported at its most."""
    return int(row.cost_nano_usd) + int(row.unsure_nano_usd)


def _written(
    policy: Policy, callers: Iterable[Caller], spent: _Spent, held: Held, now_s: float
) -> Iterator[_Written]:
    limits = policy.limits
    own = {caller.key: caller.limits for caller in callers}
    seen = spent.totals("key", 0) if limits.budget else {}
    for name in sorted({*own, *seen} - {""}):
        of_key = own.get(name)
        found = of_key.over(limits) if of_key else limits
        is_named = of_key is not None and "budget" in of_key.model_fields_set
        for each in _accounts(("key", name), found, now_s):
            if is_named or name in seen or held(each.purse):
                yield each
    for name, tenant in limits.tenants.items():
        yield from _accounts(("tenant", name), tenant, now_s)
    for name, tag in limits.tags.items():
        yield from _accounts(("tag", name), Limits(budget=tag.budget), now_s)
    for name, route in policy.routes.items():
        yield from _accounts(("route", name), route.limits, now_s)


def _accounts(scope: Scope, limits: Limits, now_s: float) -> Iterator[_Written]:
    for budget in limits.budget:
        yield _Written(*scope, budget, Account(scope, budget, 1.0).purse(now_s))


def _state(each: _Written, spent: _Spent, held: Held) -> BudgetState:
    used, limit, reserved = spent.of(each), each.purse.nano_usd, held(each.purse)
    return BudgetState(
        kind=each.purse.scope[0],
        name=each.name,
        per=each.budget.per,
        at_limit=each.budget.at_limit,
        time_zone=each.budget.time_zone,
        start=iso(each.since_us),
        end=None if each.end_us is None else iso(each.end_us),
        limit_nano_usd=limit,
        limit_usd=shown_usd(limit),
        spent_nano_usd=used,
        spent_usd=shown_usd(used),
        reserved_nano_usd=reserved,
        reserved_usd=None if reserved is None else shown_usd(reserved),
        share=used / limit if limit else 1.0,
        forecast=_forecast(each, spent, used),
        burn_down=tuple(_burn_down(each, spent, limit)),
    )


def _forecast(each: _Written, spent: _Spent, used: int) -> Forecast | None:
    if each.end_us is None:
        return None
    step_us = _STEP[each.budget.per] * HOUR_US
    to_come = (each.end_us - spent.now_us) / step_us
    found = foretell(used, list(_gone_by(each, spent)), max(0.0, to_come))
    if found is None:
        return None
    return Forecast(
        spend_nano_usd=found.spend,
        low_nano_usd=found.low,
        high_nano_usd=found.high,
        spend_usd=shown_usd(found.spend),
        low_usd=shown_usd(found.low),
        high_usd=shown_usd(found.high),
        runs_out=_runs_out(each, found, used, spent.now_us, step_us),
    )


def _gone_by(each: _Written, spent: _Spent) -> Iterator[int]:
    """Yield the sums of whole steps before now, since the account first spent anything."""
    step = _STEP[each.budget.per]
    this = spent.now_us // HOUR_US // step * step
    first = (this - _LOOK_BACK[each.budget.per]) // step * step
    steps = spent.steps(each.kind, first * HOUR_US, step).get(each.name, {})
    for hour in range(min(steps, default=this), this, step):
        yield steps.get(hour, 0)


def _runs_out(each: _Written, found: Foretold, used: int, now_us: int, step_us: int) -> str | None:
    left = each.purse.nano_usd - used
    if left <= 0:
        return iso(now_us)
    steps = found.steps_until(left)
    if steps is None or each.end_us is None or now_us + steps * step_us >= each.end_us:
        return None
    return iso(int(now_us + steps * step_us))


def _burn_down(each: _Written, spent: _Spent, limit: int) -> Iterator[BurnPoint]:
    step = _STEP[each.budget.per]
    steps = spent.steps(each.kind, each.since_us, step).get(each.name, {})
    gone, last = 0, spent.now_us // HOUR_US
    first = max(each.since_us // HOUR_US, min(steps, default=last)) // step * step
    hours = range(first, last + 1, step)
    every = -(-len(hours) // MOST_POINTS)
    for number, hour in enumerate(hours, 1):
        gone += steps.get(hour, 0)
        if number % every and number < len(hours):
            continue
        at_us = min((hour + step) * HOUR_US, spent.now_us, each.end_us or NEVER_US)
        yield BurnPoint(t=iso(at_us), left_nano_usd=limit - gone, spent_nano_usd=gone)
