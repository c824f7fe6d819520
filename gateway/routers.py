"""The routers of a policy: one a route, and one a model that may be asked for directly."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.money.prices import capabilities_of
from policies.cascade import Confidence
from policies.kinds import CONFIDENCES, LEARNED, resolve
from policies.problems import PolicyError, Problem
from policies.schema import Policy, Route
from router.cascade import build_router
from router.learned import LearnedRouter, build_learned
from router.types import Capabilities, Router, RouterError, Scorer


def build_routers(policy: Policy) -> dict[str, Router]:
    """Return the router of every route and of every model that may be asked for directly.

    Raises PolicyError for a bundle that cannot be used.
    """
    capabilities = {name: capabilities_of(model, name) for name, model in policy.models.items()}
    routers: dict[str, Router] = {}
    for name in {*policy.routes, *policy.models}:
        route = policy.route_for(name)
        assert route is not None, "every name came from the policy"
        if route.confidence.kind == LEARNED:
            routers[name] = _learned(name, route, capabilities)
        else:
            scorer = _scorer(route.cascade.confidence) if route.cascade else None
            routers[name] = build_router(route, capabilities, scorer)
    return routers


def _learned(name: str, route: Route, capabilities: Mapping[str, Capabilities]) -> LearnedRouter:
    try:
        return build_learned(route, capabilities)
    except RouterError as exc:
        message = str(exc)
    except ImportError as exc:
        message = f"needs {exc.name}; install frugal-gateway[learned]"
    where = f"routes.{name}.cascade.bundle"
    raise PolicyError([Problem("policy", 0, 0, where, message)])


def _scorer(confidence: Confidence) -> Scorer:
    scorer: Scorer = resolve(CONFIDENCES, confidence.kind)(confidence)
    return scorer
