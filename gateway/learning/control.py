"""Which requests of a route belong to its control arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.entry import Entry
from gateway.money.prices import capabilities_of
from policies.rules import first_match
from policies.schema import Policy, Route
from router.eligibility import why_unable
from router.types import Capabilities


@dataclass(frozen=True, slots=True)
class Control:
    """The control arm of one route: who answers it, and what share of the requests it gets."""

    reference: str
    share: float
    route: Route
    capabilities: Capabilities

    def draws(self, entry: Entry, chance: Callable[[], float]) -> bool:
        """Return whether this request is one of the arm's: drawn, and free to be answered so.

        What a rule sends elsewhere, what the reference cannot answer, what the client or its
        budget would not pay for, and the gateway's own calls stay as they are.
        """
        return chance() < self.share and self._may_answer(entry)

    def _may_answer(self, entry: Entry) -> bool:
        if entry.own_account is not None or self.reference in entry.left_out:
            return False
        if entry.permit is not None and entry.permit.cheapest is not None:
            return False
        rule = first_match(self.route.rules, entry.facts) if self.route.rules else None
        named = () if rule is None else (rule.model,) if rule.model else rule.tiers or ()
        if named and self.reference not in named:
            return False
        return why_unable(self.capabilities, entry.facts) is None


def controls_of(policy: Policy) -> Mapping[str, Control]:
    """Return the control arms of a policy, by route."""
    found = {}
    for name, route in policy.routes.items():
        if route.cascade is not None and route.cascade.control:
            reference = route.cascade.reference_model
            able = capabilities_of(policy.models[reference], reference)
            found[name] = Control(reference, route.cascade.control, route, able)
    return found
