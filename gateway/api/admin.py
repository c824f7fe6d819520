"""The admin port: health, the running policy, and what it came to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query

from gateway.api.caches import cache_routes
from gateway.api.guests import guest
from gateway.api.public import health_routes
from gateway.api.reports import reporting
from gateway.errors import UnknownModel

if TYPE_CHECKING:
    from gateway.app import Running


def admin_routes(app: FastAPI, running: Running) -> None:
    """Add the admin endpoints to `app`; each but health asks for a reader or an admin."""
    routes = APIRouter(prefix="/admin", dependencies=[Depends(guest)])

    @routes.get("/reports")
    def report(
        by: Annotated[Literal["model", "route", "tenant", "key", "tag", "day"], Query()] = "model",
        since: Annotated[str, Query(description="24h, 7d or a date")] = "24h",
    ) -> dict[str, Any]:
        """Return sums, and what was saved in each of the three ways it is told."""
        from gateway.money.reports import cost_report

        with reporting():
            return asdict(cost_report(running.ledger_url, by=by, since=since))

    @routes.get("/routes/{route}/quality")
    def quality(route: str) -> dict[str, Any]:
        """Return how often drafts of a route were worse than the reference's answer."""
        from gateway.learning.book import Book
        from gateway.learning.feedback import words_of
        from gateway.learning.quality_report import quality_of

        if route not in running.policy.routes:
            raise UnknownModel(f"no route is called {route!r}", param="route")
        with reporting():
            book = Book(running.ledger_url)
            try:
                return asdict(quality_of(route, book.rows(route), words_of(book, route)))
            finally:
                book.close()

    @routes.get("/refusals")
    def refusals() -> dict[str, Any]:
        """Return how many requests the workers have refused since their start, by reason and key.

        Those of other workers are a second old at most.
        """
        return {"data": running.refusals.report()}

    cache_routes(routes, running)
    app.include_router(routes)
    health_routes(app, running)
