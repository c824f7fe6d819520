"""Whose answers a request may meet: those of its own tenant, or of a corpus that tenants share."""

from __future__ import annotations

from dataclasses import dataclass

from policies.rules import RequestFacts, first_match
from policies.schema import Route


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request's answer is kept: in a `corpus` in place of its tenant, if that is not None.

    `revision` is that of the route, and of the models that a rule sends the request to.
    """

    corpus: str | None
    revision: str


def place_of(route: Route, revision: str, facts: RequestFacts) -> Place:
    """Return where the answer to a request on a route is kept.

    Rules may send one request to other models than an equal one, by its tags or
    headers, or by who asks: their answers do not meet.
    """
    rule = first_match(route.rules, facts) if route.rules else None
    if rule is not None and (rule.model is not None or rule.tiers is not None):
        revision = " ".join((revision, *(rule.tiers or ("", rule.model or ""))))
    return Place(route.corpus(rule), revision)
