"""Build every part once and wire them by name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from gateway.access.admission import Admission
from gateway.access.build import admission_of
from gateway.access.keys import KeyRing
from gateway.api.admin import admin_routes
from gateway.api.problems import answer_in_envelopes
from gateway.api.public import public_routes
from gateway.caches import Caches, caches_of
from gateway.edge import App, Edge
from gateway.engines import running_engines
from gateway.entry import Clock
from gateway.money.ledger import Ledger, ledger_at
from gateway.money.prices import PriceBook, capabilities_of, resolve_prices
from gateway.pipeline import Parts, Pipeline
from gateway.providers.build import build_providers
from gateway.settings import Settings
from gateway.upkeep import upkeep
from gateway.wire import Provider
from policies.kinds import CONFIDENCES, resolve
from policies.schema import Confidence, Policy
from router.cascade import build_router
from router.types import Router, Scorer


@dataclass(slots=True)
class Running:
    """What the endpoints beside the hot path look at; filled when the app starts."""

    policy: Policy
    keys: KeyRing
    ledger_url: str
    pipeline: Pipeline | None = None
    ledger: Ledger | None = None
    caches: Caches | None = None
    workers: int = 1

    @property
    def is_ready(self) -> bool:
        """Return whether billable requests would be taken."""
        return self.ledger is not None and self.ledger.is_healthy


@dataclass(frozen=True, slots=True)
class Apps:
    """The two ASGI applications of one process: the public port's owns the lifespan."""

    public: App
    admin: App


def create_app(
    settings: Settings,
    policy: Policy,
    *,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock | None = None,
) -> Apps:
    """Build the applications of one policy.

    `providers` takes the place of those that the policy's models would get.
    Raises UnknownPrice for a model that nobody has priced.
    """
    clock = clock or Clock()
    ledger_url = settings.ledger or policy.storage.ledger
    running = Running(policy, KeyRing(policy.access), ledger_url, workers=settings.workers)
    prices = resolve_prices(policy, datetime.fromtimestamp(clock.wall(), UTC))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(ledger_at(ledger_url))
            served = dict(providers or {})
            if not served:
                sockets = await stack.enter_async_context(
                    running_engines(policy, already=settings.sockets)
                )
                served = build_providers(policy, sockets)
            for provider in served.values():
                stack.push_async_callback(provider.aclose)
            running.ledger = ledger
            running.caches = await stack.enter_async_context(caches_of(policy, clock))
            admission = admission_of(policy, prices, clock, ledger_url)
            if admission is not None:
                stack.push_async_callback(admission.aclose)
            pipeline = _pipeline(running, served, prices, ledger, clock, admission)
            running.pipeline = pipeline
            stack.push_async_callback(pipeline.aclose)
            async with upkeep(policy, prices, ledger, clock, pipeline.use_prices):
                yield

    def current() -> Pipeline:
        assert running.pipeline is not None, "the lifespan has not begun"
        return running.pipeline

    public = _fastapi(running, lifespan=lifespan, openapi_url=None)
    public_routes(public, running)
    admin = _fastapi(running)
    admin_routes(admin, running)
    return Apps(Edge(current, public), admin)


def _fastapi(running: Running, **options: Any) -> FastAPI:
    app = FastAPI(title="frugal-gateway", redoc_url=None, redirect_slashes=False, **options)
    app.state.running = running
    answer_in_envelopes(app)
    return app


def _pipeline(
    running: Running,
    providers: Mapping[str, Provider],
    prices: PriceBook,
    ledger: Ledger,
    clock: Clock,
    admission: Admission | None,
) -> Pipeline:
    assert running.caches is not None, "the caches are built first"
    return Pipeline(
        Parts(
            policy=running.policy,
            keys=running.keys,
            routers=build_routers(running.policy),
            providers=providers,
            prices=prices,
            exact=running.caches.exact,
            ledger=ledger,
            clock=clock,
            admission=admission,
        )
    )


def build_routers(policy: Policy) -> dict[str, Router]:
    """Return the router of every route and of every model that may be asked for directly."""
    capabilities = {name: capabilities_of(model, name) for name, model in policy.models.items()}
    routers: dict[str, Router] = {}
    for name in {*policy.routes, *policy.models}:
        route = policy.route_for(name)
        assert route is not None, "every name came from the policy"
        scorer = _scorer(route.cascade.confidence) if route.cascade else None
        routers[name] = build_router(route, capabilities, scorer)
    return routers


def _scorer(confidence: Confidence) -> Scorer:
    scorer: Scorer = resolve(CONFIDENCES, confidence.kind)(confidence)
    return scorer
