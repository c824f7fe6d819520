"""Which rule of a route applies to a request: pure, first match wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policies.schema import Rule, When


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What routing may know of a request before any model has seen it.

    `input_tokens` is an estimate; `max_tokens` is None when the client set no
    bound; `headers` has lower-case names.
    """

    tenant: str
    key: str
    model: str
    stream: bool
    input_tokens: int
    max_tokens: int | None = None
    tags: frozenset[str] = frozenset()
    has_tools: bool = False
    has_images: bool = False
    json_schema: bool = False
    logprobs: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def first_match(rules: Sequence[Rule], facts: RequestFacts) -> Rule | None:
    """Return the first rule whose conditions all hold."""
    return next((rule for rule in rules if _holds(rule.when, facts)), None)


def _holds(when: When, facts: RequestFacts) -> bool:
    return (
        _same(when.tenant, facts.tenant)
        and _same(when.key, facts.key)
        and _same(when.model, facts.model)
        and _same(when.has_tools, facts.has_tools)
        and _same(when.has_images, facts.has_images)
        and _same(when.json_schema, facts.json_schema)
        and _same(when.stream, facts.stream)
        and (when.tag is None or when.tag in facts.tags)
        and _in_size(when, facts)
        and all(facts.headers.get(k.lower()) == v for k, v in (when.header or {}).items())
    )


def _same(wanted: object, found: object) -> bool:
    return wanted is None or wanted == found


def _in_size(when: When, facts: RequestFacts) -> bool:
    over, under, out = when.input_tokens_over, when.input_tokens_under, when.max_tokens_over
    return (
        (over is None or facts.input_tokens > over)
        and (under is None or facts.input_tokens < under)
        and (out is None or (facts.max_tokens is not None and facts.max_tokens > out))
    )
