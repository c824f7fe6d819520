"""Checks of one route: every name is known, nothing repeats, every setting can have an effect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from policies.cascade import Cascade, Confidence
from policies.checks.outline import Outline
from policies.document import Document
from policies.explain import nearest
from policies.kinds import CONFIDENCES, LEARNED, is_class_path
from policies.problems import KeyPath
from policies.schema import Route, Rule, When


def check_routes(outline: Outline, document: Document) -> None:
    """Report what is wrong with the routes."""
    for name, route in outline.routes.items():
        path: KeyPath = ("routes", name)
        for where, model in _named_models(route, path):
            _check_name(where, model, outline, document)
        for where, names in _lists(route, path):
            _check_distinct(where, names, document)
        _check_fallback(route, path, document)
        _check_rules(route, path, document)
        _check_judged(route, path, outline, document)
        if route.cascade is not None:
            _check_confidence(route.cascade.confidence, path, document)
            _check_learned(route.cascade, route.rules, path, document)
    _check_embedders(outline, document)


def _check_embedders(outline: Outline, document: Document) -> None:
    """Refuse a second embedder: a process holds one, and one index of its vectors."""
    first: str | None = None
    for name, route in outline.routes.items():
        for cache in route.semantic_caches:
            first = first or cache.embedder
            if cache.embedder != first:
                path: KeyPath = ("routes", name, "cache", "semantic")
                message = f"expected the embedder {first!r} of the other routes"
                document.report(path, f"{message}, found {cache.embedder!r}", "name one for all")
                return


def _judges(route: Route, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    caches = [(path, route.cache)]
    caches += [
        ((*path, "rules", n), rule.cache) for n, rule in enumerate(route.rules) if rule.cache
    ]
    for where, cache in caches:
        if cache.semantic is not None and cache.semantic.judge is not None:
            yield (*where, "cache", "semantic", "judge"), cache.semantic.judge


def _named_models(route: Route, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if route.model is not None:
        yield (*path, "model"), route.model
    for where, names in _lists(route, path):
        yield from (((*where, index), name) for index, name in enumerate(names))
    for index, rule in enumerate(route.rules):
        if rule.model is not None:
            yield (*path, "rules", index, "model"), rule.model
    yield from _judges(route, path)
    if (cascade := route.cascade) is not None:
        if cascade.reference is not None:
            yield (*path, "cascade", "reference"), cascade.reference
        if cascade.confidence.second is not None:
            yield (*path, "cascade", "confidence", "with"), cascade.confidence.second
        if cascade.audit is not None and cascade.audit.judge is not None:
            yield (*path, "cascade", "audit", "judge"), cascade.audit.judge


def _lists(route: Route, path: KeyPath) -> Iterator[tuple[KeyPath, tuple[str, ...]]]:
    if route.cascade is not None:
        yield (*path, "cascade", "tiers"), route.cascade.tiers
    yield (*path, "fallback"), route.fallback
    for index, rule in enumerate(route.rules):
        yield (*path, "rules", index, "tiers"), rule.tiers or ()


def _check_name(path: KeyPath, name: str, outline: Outline, document: Document) -> None:
    if name in outline.model_names:
        return
    found = document.found(path)
    if name in outline.route_names:
        document.report(
            path, f"expected a model, found the route {found}", "name one of its models"
        )
        return
    known = list(outline.model_names)
    hint = nearest(name, known) or "known: " + ", ".join(known)
    document.report(path, f"no model is named {found}", hint)


def _check_distinct(path: KeyPath, names: tuple[str, ...], document: Document) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            found = document.found((*path, index))
            document.report((*path, index), f"{found} stands twice in this list")
        seen.add(name)


def _check_fallback(route: Route, path: KeyPath, document: Document) -> None:
    """Refuse a fallback that every way through the route has tried by then."""
    courses = [set(route.tiers)]
    courses += [set(_course(rule)) for rule in route.rules if _course(rule)]
    for index, name in enumerate(route.fallback):
        if all(name in course for course in courses):
            where = (*path, "fallback", index)
            message = f"{document.found(where)} is a model of this route already"
            document.report(where, message, "name a model that has not been tried by then")


def _course(rule: Rule) -> tuple[str, ...]:
    return rule.tiers or ((rule.model,) if rule.model else ())


def _check_rules(route: Route, path: KeyPath, document: Document) -> None:
    for index, rule in enumerate(route.rules):
        where = (*path, "rules", index, "when")
        _check_condition(rule.when, where, document)
        is_last = index == len(route.rules) - 1
        if not is_last and not document.at(where):
            hint = "give it a condition, or move it to the end"
            document.report(where, "matches every request, so no later rule can", hint)


def _check_condition(when: When, path: KeyPath, document: Document) -> None:
    over, under = when.input_tokens_over, when.input_tokens_under
    if over is not None and under is not None and over + 1 >= under:
        document.report(path, f"no number is over {over} and under {under}")
    _check_headers(when.header or {}, (*path, "header"), document)


def _check_headers(headers: Iterable[str], path: KeyPath, document: Document) -> None:
    seen: set[str] = set()
    for name in headers:
        lowered = name.lower()
        if not name or not name.isascii() or not name.replace("-", "a").replace("_", "a").isalnum():
            document.report((*path, name), f"{name!r} is not the name of a header", at_key=True)
        elif lowered in seen:
            document.report((*path, name), f"the header {lowered} stands twice", at_key=True)
        seen.add(lowered)


def _check_confidence(confidence: Confidence, path: KeyPath, document: Document) -> None:
    path, kind = (*path, "cascade", "confidence"), confidence.kind
    where = (*path, "kind") if isinstance(document.at(path), dict) else path
    if kind == "agreement" and confidence.second is None:
        document.report(
            (*path, "with"), "confidence agreement needs it", "name a second, cheap model"
        )
    elif kind == "agreement" and confidence.early is not None:
        message = "'early' needs token log-probabilities, which agreement does not read"
        document.report((*path, "early"), message, "remove it", at_key=True)
    elif kind == "logprob" and confidence.second is not None:
        message = "'with' means nothing to confidence logprob"
        document.report(
            (*path, "with"), message, "write kind: agreement, or remove it", at_key=True
        )
    elif kind not in (*CONFIDENCES, LEARNED) and not is_class_path(kind):
        known = [*CONFIDENCES, LEARNED, "package.module:Class"]
        hint = nearest(kind, known) or "known: " + ", ".join(known)
        document.report(where, f"unknown confidence {document.found(where)}", hint)


def _check_learned(
    cascade: Cascade, rules: Sequence[Rule], route: KeyPath, document: Document
) -> None:
    """Refuse what only a learned cascade can do, or what it cannot."""
    path: KeyPath = (*route, "cascade")
    if cascade.confidence.kind != LEARNED:
        for key in ("target", "bundle", "learning", "usd_per_second"):
            if getattr(cascade, key) is not None:
                message = f"{key!r} means nothing to confidence {cascade.confidence.kind}"
                hint = "write confidence: learned, or remove it"
                document.report((*path, key), message, hint, at_key=True)
        return
    if cascade.confidence.second is not None:
        message = "'with' means nothing to confidence learned: its tiers agree or not"
        document.report((*path, "confidence", "with"), message, "add it to the tiers", at_key=True)
    if cascade.reference is not None and cascade.reference not in cascade.tiers:
        message = f"the reference {cascade.reference!r} of a learned cascade must be a tier of it"
        document.report((*path, "reference"), message, "add it to the tiers, as the last")
    for index, rule in enumerate(rules):
        for place, name in enumerate(rule.tiers or ()):
            if name not in cascade.tiers:
                where = (*route, "rules", index, "tiers", place)
                message = f"{name!r} is no tier of this learned cascade, which knows nothing of it"
                document.report(where, message, "name some of its tiers, or a single model")


def _check_judged(route: Route, path: KeyPath, outline: Outline, document: Document) -> None:
    """Check each tier whose drafts are judged: all but the last of its list."""
    confidence = route.confidence
    for where, names in _lists(route, path):
        for index, name in enumerate(names[:-1] if where[-1] == "tiers" else ()):
            spot = (*where, index)
            if confidence.kind == "agreement" and name == confidence.second:
                message = f"{document.found(spot)} would be judged by itself"
                document.report(spot, message, "name another model under 'with'")
            if confidence.kind == "logprob" and _is_silent(outline, name):
                message = (
                    f"{document.found(spot)} gives no log-probabilities to judge its drafts by"
                )
                document.report(spot, message, "use confidence agreement")


def _is_silent(outline: Outline, name: str) -> bool:
    model = outline.models.get(name)
    return model is not None and (model.provider == "recorded" or model.logprobs is False)
