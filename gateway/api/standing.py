"""The admin port's reports on how things stand now: models, budgets, quality, live totals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.responses import StreamingResponse

from gateway.api.guests import reader
from gateway.api.reports import Asked, Since, reporting
from gateway.errors import GatewayError
from gateway.reporting.shapes import MOST_BUDGETS, Budgets, Providers, QualityReport, Totals

if TYPE_CHECKING:
    from gateway.app import Running
    from policies.schema import Route

_EVENTS = "text/event-stream"
Most = Annotated[int, Query(ge=1, le=1000, description="Budgets to list, fullest first")]
Every = Annotated[float, Query(ge=1, le=60, description="Seconds between two")]


def standing_routes(app: FastAPI, running: Running) -> None:
    """Add the reports to `app`; each asks for a reader."""
    routes = APIRouter(prefix="/admin/reports", dependencies=[Depends(reader)], tags=["reports"])

    @routes.get("/providers")
    async def providers(within: Asked) -> Providers:
        """Return how each model stands; its state is that of the process that answers."""
        from gateway.reporting.standing import providers as found

        assert running.site is not None, "the lifespan has not begun"
        with reporting():
            return await found(
                running.ledger_url,
                within,
                running.policy,
                running.site,
                running.resilience.breakers() if running.resilience else {},
                now_tick=running.tick(),
                workers=running.workers,
            )

    @routes.get("/budgets")
    def budgets(limit: Most = MOST_BUDGETS) -> Budgets:
        """Return the fullest budgets in their present windows: spent, set aside, foretold."""
        from gateway.reporting.budgets import budgets as found
        from gateway.reporting.reserved import reserved

        shared, now_s = running.policy.storage.limits, running.wall()
        with reporting():
            held = reserved(running.limits, shared, workers=running.workers, now_s=now_s)
            return found(
                running.ledger_url,
                running.policy,
                running.keys.callers(),
                now_s=now_s,
                held=held,
                most=limit,
            )

    @routes.get("/quality")
    async def quality(within: Asked) -> QualityReport:
        """Return how good the cheaper answers of each route are, and what is proven of it."""
        from gateway.reporting.quality import quality as found
        from gateway.reporting.window import day_of

        near = running.near
        report = await near.report() if near else {"budgets": ()}
        with reporting():
            return await asyncio.to_thread(
                found,
                running.ledger_url,
                within,
                running.policy,
                report["budgets"],
                lambda name: bundle_certificate(running.policy.routes[name]),
                today=day_of(running.wall()),
            )

    @routes.get(
        "/live", response_class=StreamingResponse, responses={200: {"content": {_EVENTS: {}}}}
    )
    async def live(since: Since = "24h", every: Every = 3.0) -> StreamingResponse:
        """Send the totals of a time every few seconds, as server-sent events `totals`."""
        from gateway.reporting.live import LiveFull, events

        def look() -> Totals:
            with reporting():
                return live_totals(running, since)

        try:
            stream = events(running.listeners, since, look, every)
        except LiveFull as exc:
            raise TooManyListeners(str(exc), retry_after="10") from exc
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type=_EVENTS, headers=headers)

    app.include_router(routes)


def bundle_certificate(route: Route) -> Mapping[str, Any] | None:
    """Return what is certified of a route's bundle, None without one that can be read."""
    from router.bundle import about_bundle
    from router.types import RouterError

    path = route.cascade.bundle_path if route.cascade else None
    if path is None:
        return None
    try:
        found = about_bundle(path).get("certificate")
    except (RouterError, OSError):
        return None
    return found if isinstance(found, dict) else None


def live_totals(running: Running, since: str) -> Totals:
    """Return the totals from a moment until now."""
    from gateway.money.databases import reading
    from gateway.money.periods import period
    from gateway.reporting.overview import totals
    from gateway.reporting.window import window

    now = window(since, None, None, datetime.fromtimestamp(running.wall(), UTC))
    with reading(running.ledger_url) as connection:
        asked = period(connection, running.ledger_url, now.since_us)
        return totals(connection, asked, now.until_us)


class TooManyListeners(GatewayError):
    """As many pages as may listen do so already."""

    status = 429
    type = "rate_limit_error"
    default_code = "too_many_listeners"
