"""From a policy to the meters of one request: those of its key, tenant, route and tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.access.keys import Caller
from gateway.access.meters import NOTHING, Claim, Pace, Purse, Room, Scope
from gateway.access.windows import Window, window_at
from gateway.money.price import to_nano
from policies.limits import Budget, DefaultLimits, Limits, Priority, Rates
from policies.schema import Policy, Route

_PER = {"hour": "an hour", "day": "a day", "month": "a month", "total": "in all"}


class Account:
    """One budget, which knows the purse of the present window."""

    def __init__(self, scope: Scope, budget: Budget, share: float) -> None:
        self._scope = scope
        self._budget = budget
        self._nano_usd = int(to_nano(budget.usd) * share)
        zone = budget.time_zone
        self._id = f"{_id(scope)}:{budget.per}@{zone}:{budget.at_limit}"
        self._purse = self._in(Window(0.0, 0.0))

    def purse(self, at: float) -> Purse:
        """Return the purse of the window that holds the moment `at`."""
        purse = self._purse
        if not purse.start <= at < purse.end:
            window = window_at(self._budget.per, self._budget.time_zone, at)
            purse = self._purse = self._in(window)
        return purse

    def _in(self, window: Window) -> Purse:
        budget = self._budget
        period = _PER[budget.per]
        return Purse(
            id=f"{self._id}:{window.name}",
            account=self._id,
            scope=self._scope,
            whose=f"the budget of {_words(self._scope)}: {budget.usd:f} dollars {period}",
            nano_usd=self._nano_usd,
            at_limit=budget.at_limit,
            hard=budget.at_limit != "warn",
            start=window.start,
            end=window.end,
        )


@dataclass(frozen=True, slots=True)
class Meters:
    """Everything that counts one kind of request; `entrance` is what each takes of it at once."""

    requests: tuple[Pace, ...] = ()
    tokens: tuple[Pace, ...] = ()
    rooms: tuple[Room, ...] = ()
    accounts: tuple[Account, ...] = ()
    entrance: Claim = NOTHING

    @property
    def is_empty(self) -> bool:
        """Return whether nothing is limited."""
        return not (self.requests or self.tokens or self.rooms or self.accounts)


_Found = tuple[Limits | None, Meters]


class Accounts:
    """The meters of a policy.

    `share` is the part of every limit that is this process' own, `of_budgets` that of every budget.
    """

    def __init__(self, policy: Policy, *, share: float = 1.0, of_budgets: float = 1.0) -> None:
        self._defaults = policy.limits
        self._shares = (share, of_budgets)
        self._tags = frozenset(policy.limits.tags)
        self._found: dict[tuple[str, str, str, frozenset[str]], _Found] = {}
        self._models = {
            name: _meters([(("model", name), model.limits)], self._shares)
            for name, model in policy.models.items()
            if model.limits.model_fields_set
        }

    def of(self, caller: Caller, tags: frozenset[str], route_name: str, route: Route) -> Meters:
        """Return what counts the requests of this caller on this route."""
        counted = tags & self._tags if self._tags else _NO_TAGS
        key = (caller.key, caller.tenant, route_name, counted)
        found = self._found.get(key)
        if found is None or found[0] is not caller.limits:
            found = (
                caller.limits,
                _meters(self._scopes(caller, counted, route_name, route), self._shares),
            )
            self._found[key] = found
        return found[1]

    def priority(self, caller: Caller, route: Route) -> Priority:
        """Return the priority of a caller's requests on a route."""
        return priority_of(self._defaults, caller, route)

    def of_model(self, name: str) -> Meters | None:
        """Return what counts the calls of one model, None where nothing does."""
        return self._models.get(name)

    def _scopes(
        self, caller: Caller, tags: Iterable[str], route_name: str, route: Route
    ) -> Iterator[tuple[Scope, Rates]]:
        defaults = self._defaults
        yield ("key", caller.key), caller.limits.over(defaults) if caller.limits else defaults
        if (limits := defaults.tenants.get(caller.tenant)) is not None:
            yield ("tenant", caller.tenant), limits
        yield ("route", route_name), route.limits
        for tag in sorted(tags):
            yield ("tag", tag), Limits(budget=defaults.tags[tag].budget)


def priority_of(defaults: DefaultLimits, caller: Caller, route: Route) -> Priority:
    """Return the priority of a caller's requests: the first that is written."""
    for limits in (caller.limits, defaults.tenants.get(caller.tenant), route.limits):
        if limits is not None and "priority" in limits.model_fields_set:
            return limits.priority
    return defaults.priority


_NO_TAGS: frozenset[str] = frozenset()


def has_limits(policy: Policy) -> bool:
    """Return whether a policy limits anything at all."""
    written = [policy.limits, *(model.limits for model in policy.models.values())]
    written += [route.limits for route in policy.routes.values()]
    return any(each.model_fields_set for each in written) or any(
        key.limits is not None for key in policy.access.keys
    )


def _meters(scopes: Iterable[tuple[Scope, Rates]], shares: tuple[float, float]) -> Meters:
    share, of_budgets = shares
    requests: list[Pace] = []
    tokens: list[Pace] = []
    rooms: list[Room] = []
    accounts: list[Account] = []
    for scope, limits in scopes:
        name, whose = _id(scope), _words(scope)
        if limits.requests_per_minute is not None:
            most = _part(limits.requests_per_minute, share)
            requests.append(Pace(f"{name}:requests", whose, "requests", most))
        if limits.tokens_per_minute is not None:
            most = _part(limits.tokens_per_minute, share)
            tokens.append(Pace(f"{name}:tokens", whose, "tokens", most))
        if limits.concurrent is not None:
            rooms.append(Room(f"{name}:concurrent", whose, _part(limits.concurrent, share)))
        if isinstance(limits, Limits):
            accounts += [Account(scope, budget, of_budgets) for budget in limits.budget]
    entrance = Claim(tuple([(pace, 1) for pace in requests]), tuple(rooms))
    return Meters(tuple(requests), tuple(tokens), tuple(rooms), tuple(accounts), entrance)


def _part(limit: int, share: float) -> int:
    return max(1, int(limit * share))


def _id(scope: Scope) -> str:
    return f"{scope[0]}:{scope[1]}"


def _words(scope: Scope) -> str:
    return f"{scope[0]} {scope[1]!r}"
