"""Build every part once and wire them by name."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from gateway.access.build import admission_of, limit_store
from gateway.access.key_exchange import exchanged_keys, shared_at
from gateway.access.key_store import keys_path
from gateway.access.key_watch import KnownKeys, followed_keys
from gateway.access.keys import KeyRing
from gateway.access.meters import LimitStore
from gateway.access.refused import Refusals, told_to_workers
from gateway.access.sessions import Sessions, Tries
from gateway.alerts import alerting_of
from gateway.api.admin import admin_routes
from gateway.api.csp import csp_routes
from gateway.api.dashboard import dashboard_routes
from gateway.api.docs import docs_routes
from gateway.api.feedback import feedback_routes
from gateway.api.guests import session_routes
from gateway.api.keys import keys_routes
from gateway.api.metrics import metrics_routes
from gateway.api.packing import PackedReports
from gateway.api.policy import policy_routes
from gateway.api.problems import answer_in_envelopes
from gateway.api.public import public_routes
from gateway.api.reports import reports_routes
from gateway.api.standing import standing_routes
from gateway.bookkeeping import bookkeeping
from gateway.caches import Caches, caches_of
from gateway.changes.apply import Editor
from gateway.changes.file import PolicyFile
from gateway.clock import Clock
from gateway.edge import App, Edge
from gateway.error_budgets import watched
from gateway.learning.observing import observing
from gateway.learning.steward import learning
from gateway.meanings import Meanings, check_extra
from gateway.money.ledger import Ledger, ledger_at
from gateway.money.location import (
    figures_beside,
    is_postgres,
    learned_beside,
    locate,
    refusals_beside,
    replies_beside,
    spool_of,
    turns_beside,
)
from gateway.money.prices import PriceBook, resolve_prices
from gateway.pipeline import Parts, Pipeline
from gateway.repeats import Repeats
from gateway.reporting.live import Listeners
from gateway.resilience.fleet import Fleet
from gateway.resilience.resilience import Resilience
from gateway.resilience.shed import shedding_of
from gateway.resilience.site import Site
from gateway.routers import build_routers
from gateway.semantic import NearAnswers
from gateway.settings import ALONE, Settings, Team
from gateway.shelf import Shelf
from gateway.telemetry.board import FigureBoard, figure_board
from gateway.telemetry.logs import tell_of_request
from gateway.telemetry.process import figures_of
from gateway.telemetry.traces import tracing_of
from gateway.turns import Turns
from gateway.upkeep import upkeep
from gateway.wire import Provider
from policies.schema import Policy


@dataclass(slots=True)
class Running:
    """What the endpoints beside the hot path look at; filled when the app starts.

    `ledger_url` is what reports read, `spool_url` what this process writes: the
    same, unless the ledger is in PostgreSQL. `keys_at` is where machines share keys.
    """

    policy: Policy
    keys: KeyRing
    ledger_url: str
    spool_url: str
    pipeline: Pipeline | None = None
    ledger: Ledger | None = None
    caches: Caches | None = None
    team: Team = ALONE
    made_keys: KnownKeys | None = None
    keys_at: str | None = None
    site: Site | None = None
    resilience: Resilience | None = None
    limits: LimitStore | None = None
    board: FigureBoard | None = None
    editor: Editor | None = None
    listeners: Listeners = field(default_factory=Listeners)
    refusals: Refusals = field(default_factory=Refusals)
    wall: Callable[[], float] = time.time
    tick: Callable[[], float] = time.perf_counter
    sessions: Sessions = field(init=False)
    tries: Tries = field(init=False)

    def __post_init__(self) -> None:
        self.sessions, self.tries = Sessions(self.wall), Tries(self.wall)

    def use(self, policy: Policy, pipeline: Pipeline) -> None:
        """Follow another policy from the next request on."""
        self.policy, self.keys, self.pipeline = policy, pipeline.keys, pipeline

    @property
    def workers(self) -> int:
        """Return how many processes serve alike."""
        return self.team.workers

    @property
    def near(self) -> NearAnswers | None:
        """Return the semantic cache of the policy that is followed, if it names one."""
        return self.pipeline.near if self.pipeline else None

    @property
    def is_ready(self) -> bool:
        """Return whether billable requests would be taken."""
        return self.ledger is not None and self.ledger.is_healthy


@dataclass(frozen=True, slots=True)
class Apps:
    """The two ASGI applications of one process.

    Both work while `lifespan` is entered, which the public one does for a
    server that asks it to. `reload` reads the policy's file again, and returns
    whether it is followed; `leave` ends what would go on for as long as a client
    listens; `loaded` waits for the engines of this process.
    """

    public: App
    admin: App
    reload: Callable[[], Awaitable[bool]]
    leave: Callable[[], None]
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    loaded: Callable[[], Awaitable[None]]


def create_app(
    settings: Settings,
    policy: Policy,
    *,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock | None = None,
) -> Apps:
    """Build the applications of one policy.

    `providers` takes the place of those that the policy's models would get.
    Raises UnknownPrice for a model that nobody has priced, PolicyError where an extra is missing.
    """
    clock = clock or Clock()
    ledger_url = settings.ledger or policy.storage.ledger
    spool_url = spool_of(ledger_url, policy.storage.spool.file)
    made = KnownKeys(clock.wall)
    running = Running(
        policy,
        KeyRing(policy.access, made),
        ledger_url,
        spool_url,
        team=settings.team,
        made_keys=made,
        keys_at=_keys_at(policy, ledger_url),
        wall=clock.wall,
        tick=clock.tick,
    )
    _prices(policy, clock)
    check_extra(policy)
    check_postgres(ledger_url, policy.storage.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI | None = None) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            running.ledger = await stack.enter_async_context(ledger_at(spool_url))
            spool = locate(spool_url).path
            await stack.enter_async_context(
                bookkeeping(policy.storage, ledger_url, spool, running.ledger, clock.wall)
            )
            await stack.enter_async_context(
                told_to_workers(running.refusals, refusals_beside(spool), settings.team)
            )
            running.caches = await stack.enter_async_context(caches_of(policy, clock))
            running.board = await stack.enter_async_context(
                figure_board(figures_beside(spool), settings.team, lambda: figures_of(running))
            )
            fleet = Fleet(
                policy,
                given=providers or {},
                sockets=settings.sockets,
                is_one_of_many=settings.workers > 1,
            )
            keys_at = keys_path(spool_url)
            await stack.enter_async_context(_shared_keys(running, keys_at))
            await stack.enter_async_context(followed_keys(made, keys_at, os.environ))
            limits = await stack.enter_async_context(limit_store(policy, clock, ledger_url))
            shared = running.caches.shared
            meanings = Meanings(
                clock, remote=settings.semantic, link=shared.link if shared else None
            )
            running.resilience = Resilience(clock)
            running.limits = limits
            build = _Wiring(running, clock, limits, running.resilience, meanings).build
            running.site = await stack.enter_async_context(
                Site(policy, fleet, build=build, use=running.use, path=settings.policy_path)
            )
            if settings.policy_path is not None:
                running.editor = Editor(
                    PolicyFile(settings.policy_path), running.site, clock.wall, settings.tell_others
                )
            yield

    def current() -> Pipeline:
        assert running.pipeline is not None, "the lifespan has not begun"
        return running.pipeline

    async def reload() -> bool:
        return running.site is not None and await running.site.reload()

    async def loaded() -> None:
        if running.site is not None:
            await running.site.loaded()

    public = _fastapi(running, lifespan=lifespan, openapi_url=None)
    public_routes(public, running)
    feedback_routes(public, running)
    admin = _fastapi(running, docs_url=None)
    admin_routes(admin, running)
    session_routes(admin, running)
    reports_routes(admin, running)
    standing_routes(admin, running)
    policy_routes(admin, running)
    docs_routes(admin)
    keys_routes(admin)
    metrics_routes(admin, running, clock.wall)
    dashboard_routes(admin)
    csp_routes(admin)
    admin.add_middleware(PackedReports)
    edge = Edge(current, public, token=settings.team.token)
    return Apps(edge, admin, reload, running.listeners.over.set, lifespan, loaded)


def _fastapi(running: Running, **options: Any) -> FastAPI:
    app = FastAPI(title="frugal-gateway", redoc_url=None, redirect_slashes=False, **options)
    app.state.running = running
    answer_in_envelopes(app)
    return app


@dataclass(frozen=True, slots=True)
class _Wiring:
    """What pipelines are made of beside their policies."""

    running: Running
    clock: Clock
    limits: LimitStore
    resilience: Resilience
    meanings: Meanings

    async def build(
        self, policy: Policy, providers: Mapping[str, Provider], stack: AsyncExitStack
    ) -> Pipeline:
        """Wire the pipeline of one policy, with its upkeep."""
        running, clock = self.running, self.clock
        assert running.caches is not None, "the caches are built first"
        assert running.ledger is not None, "the ledger is opened first"
        prices = _prices(policy, clock)
        routers = build_routers(policy)
        spool = locate(running.spool_url).path
        meaning = await stack.enter_async_context(
            self.meanings.of(
                policy,
                spool,
                wants_vectors=any(router.wants_vector for router in routers.values()),
            )
        )
        alerting = await stack.enter_async_context(alerting_of(policy.alerts, clock.wall))
        self.resilience.tell(alerting.breaker if alerting else None)
        if alerting is not None and meaning.near is not None and running.team.is_first:
            audits = watched(meaning.near.cache.budgets, alerting.error_budget)
            await stack.enter_async_context(audits)
        observer = await stack.enter_async_context(
            observing(policy, running.ledger_url, clock.wall)
        )
        await stack.enter_async_context(
            learning(
                policy,
                routers,
                running.ledger_url,
                clock.wall,
                acts=running.team.is_first,
                tell=alerting.learning if alerting else None,
                latest=observer.versions if observer else None,
                place=learned_beside(spool),
            )
        )
        pipeline = Pipeline(
            Parts(
                policy=policy,
                keys=KeyRing(policy.access, running.made_keys),
                routers=routers,
                providers=providers,
                prices=prices,
                exact=running.caches.exact,
                ledger=running.ledger,
                clock=clock,
                admission=admission_of(
                    policy,
                    prices,
                    clock,
                    running.ledger_url,
                    self.limits,
                    spool_url=running.spool_url,
                    team=running.team,
                    alerts=alerting,
                    for_keys=keys_path(running.spool_url).exists(),
                ),
                resilience=self.resilience,
                shedding=await stack.enter_async_context(shedding_of(policy.limits.shed)),
                near=meaning.near,
                refusals=running.refusals,
                repeats=Repeats(
                    running.caches.repeats,
                    clock,
                    Shelf(replies_beside(spool)),
                    Turns(turns_beside(spool)),
                ),
                embedding=meaning.embedding,
                observer=observer,
                tracing=await stack.enter_async_context(tracing_of(policy.telemetry.traces)),
                alerting=alerting,
                tell=tell_of_request if policy.telemetry.logs.requests else None,
            )
        )
        stack.push_async_callback(pipeline.aclose)
        await stack.enter_async_context(
            upkeep(policy, prices, running.ledger, clock, pipeline.use_prices)
        )
        return pipeline


def _shared_keys(running: Running, keys_at: Path) -> AbstractAsyncContextManager[None]:
    """Keep the keys of this machine together with those of others, where they share a place."""
    if running.keys_at is None or not running.team.is_first:
        return nullcontext()
    return exchanged_keys(running.keys_at, keys_at, os.environ)


def _keys_at(policy: Policy, ledger_url: str) -> str | None:
    redis, limits = policy.storage.redis, policy.storage.limits
    return shared_at(ledger_url, redis.get_secret_value() if redis else None, limits)


def check_postgres(*urls: str | None) -> None:
    """Raise LedgerRefused for a URL that cannot be read, or whose extra is not installed."""
    for url in urls:
        if url is not None and is_postgres(url):
            from gateway.money.databases import postgres_engine

            postgres_engine(url).dispose()


def _prices(policy: Policy, clock: Clock) -> PriceBook:
    return resolve_prices(policy, datetime.fromtimestamp(clock.wall(), UTC))
