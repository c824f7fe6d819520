"""Whose answers a request may meet: those of its own tenant, or of a corpus that tenants share."""

from __future__ import annotations

from dataclasses import dataclass

from policies.rules import RequestFacts, first_match
from policies.schema import Route


@dataclass(frozen=True, slots=True)
class Corpus:
    """What stands in a fingerprint for the tenant, and for the revision of the route."""

    name: str
    revision: str


def corpus_of(route: Route, revision: str, facts: RequestFacts) -> Corpus | None:
    """Return the corpus that a request shares in; None where its tenant keeps to itself.

    Rules may send one tenant to other models than the next: they do not meet.
    """
    rule = first_match(route.rules, facts) if route.rules else None
    name = route.corpus(rule)
    if name is None:
        return None
    if rule is not None and (rule.model is not None or rule.tiers is not None):
        revision = " ".join((revision, *(rule.tiers or ("", rule.model or ""))))
    return Corpus(name, revision)
