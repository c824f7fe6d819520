"""What is allowed in a policy, yet probably not what its author expects."""

from __future__ import annotations

from collections.abc import Iterator

from policies.kinds import LEARNED, LOGPROBS_BY_DEFAULT, REMOTE_PROVIDERS
from policies.problems import KeyPath, spell
from policies.schema import Model, Policy, Route

_WRITE = "(write logprobs: true if its server reports them)"
_REMEDY = {"anthropic": "(its API reports none)"}


def notes(policy: Policy) -> tuple[str, ...]:
    """Return remarks on a sound policy, each with its key path."""
    return (*_on_access(policy), *_on_models(policy), *_on_routes(policy))


def _on_access(policy: Policy) -> Iterator[str]:
    if not policy.access.keys and policy.access.anonymous == "never":
        yield "access: nobody may call: every request gets 401 (add a key, or anonymous: loopback)"


def _on_models(policy: Policy) -> Iterator[str]:
    for name, model in policy.models.items():
        if model.price == "unknown_is_free":
            path = spell(("models", name, "price"))
            yield f"{path}: what it costs counts as zero where the price table does not know it"


def _on_routes(policy: Policy) -> Iterator[str]:
    for name, route in policy.routes.items():
        if route.has_corpora and not route.keeps_answers:
            yield f"{spell(('routes', name))}: 'cache.share' shares nothing: no cache is on"
        for path, tier in _judged(route, ("routes", name)):
            if _says_nothing_of_logprobs(policy.models[tier]):
                yield (
                    f"{spell(path)}: log-probabilities are not asked of '{tier}', so each of its "
                    f"drafts escalates {_REMEDY.get(policy.models[tier].provider, _WRITE)}"
                )

        yield from _on_learning(policy, route, ("routes", name))


def _on_learning(policy: Policy, route: Route, path: KeyPath) -> Iterator[str]:
    """Yield what a route that is to learn by itself will never learn."""
    cascade = route.cascade
    if cascade is None or cascade.confidence.kind != LEARNED or cascade.bundle is not None:
        return
    if cascade.learning is not None and not cascade.learning.automatic:
        return
    has_floor = cascade.target is not None and cascade.target.max_quality_loss is not None
    has_audits = cascade.audit is not None and cascade.audit.share > 0
    if has_floor and not has_audits:
        yield (
            f"{spell((*path, 'cascade', 'target'))}: without audits no floor is ever certified, "
            "and the reference answers every request (add audit: {share: 0.02}, or a bundle)"
        )
    elif cascade.target is not None and has_audits and not policy.privacy.store_texts:
        yield (
            f"{spell((*path, 'cascade'))}: without privacy.store_texts the whole learner is never "
            "trained: drafts' own signs are all that is learnt"
        )


def _judged(route: Route, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield each tier whose drafts are judged by their log-probabilities."""
    if route.confidence.kind != "logprob":
        return
    lists: list[tuple[KeyPath, tuple[str, ...]]] = [((*path, "cascade", "tiers"), route.tiers)]
    for at, rule in enumerate(route.rules):
        lists.append(((*path, "rules", at, "tiers"), rule.tiers or ()))
    for where, tiers in lists:
        yield from (((*where, at), tier) for at, tier in enumerate(tiers[:-1]))


def _says_nothing_of_logprobs(model: Model) -> bool:
    is_quiet = model.provider in REMOTE_PROVIDERS - LOGPROBS_BY_DEFAULT
    return is_quiet and model.logprobs is None
