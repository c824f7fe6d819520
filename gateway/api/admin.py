"""The admin port: health, the running policy, and the ledger row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request

from gateway.access.keys import ANONYMOUS, Caller, is_loopback_host
from gateway.api.caches import cache_routes
from gateway.api.public import calling, health_routes
from gateway.errors import Forbidden, InvalidRequest, LedgerUnavailable, UnknownModel
from gateway.money.errors import LedgerError, ReportError
from policies.show import masked

if TYPE_CHECKING:
    from gateway.app import Running


def admin(request: Request) -> Caller:
    """Let an admin in, or loopback where the policy opens it. Raises Forbidden, InvalidRequest."""
    check_host(request)
    caller = calling(request)
    if caller is not ANONYMOUS and not caller.is_admin:
        raise Forbidden("the admin port needs a key with the scope 'admin'")
    return caller


def check_host(request: Request) -> None:
    """Turn a name away that was rebound to this machine. Raises InvalidRequest."""
    server = request.app.state.running.policy.server
    allowed = {server.admin_host, *server.allowed_hosts}
    host = request.headers.get("host", "")
    if not is_loopback_host(host.encode("latin-1")) and host.partition(":")[0] not in allowed:
        raise InvalidRequest(f"the Host header {host!r} is not one of server.allowed_hosts")


@contextmanager
def _reporting() -> Iterator[None]:
    """Raise InvalidRequest for what cannot be asked, LedgerUnavailable where nobody answers."""
    try:
        yield
    except ReportError as exc:
        raise InvalidRequest(str(exc), param="since") from exc
    except LedgerError as exc:
        raise LedgerUnavailable(str(exc)) from exc


def admin_routes(app: FastAPI, running: Running) -> None:
    """Add the admin endpoints to `app`; each but health asks for an admin."""
    routes = APIRouter(prefix="/admin", dependencies=[Depends(admin)])

    @routes.get("/policy")
    def policy() -> dict[str, Any]:
        """Return the running policy with its secrets masked."""
        return masked(running.policy)

    @routes.get("/reports/requests")
    def requests(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        since: Annotated[str, Query(description="24h, 7d or a date")] = "24h",
    ) -> dict[str, Any]:
        """Return one row a request, newest first."""
        from gateway.money.reports import request_rows

        with _reporting():
            return {"data": request_rows(running.ledger_url, since=since, limit=limit)}

    @routes.get("/reports")
    def report(
        by: Annotated[Literal["model", "route", "tenant", "key", "tag", "day"], Query()] = "model",
        since: Annotated[str, Query(description="24h, 7d or a date")] = "24h",
    ) -> dict[str, Any]:
        """Return sums, and what was saved in each of the three ways it is told."""
        from gateway.money.reports import cost_report

        with _reporting():
            return asdict(cost_report(running.ledger_url, by=by, since=since))

    @routes.get("/routes/{route}/quality")
    def quality(route: str) -> dict[str, Any]:
        """Return how often drafts of a route were worse than the reference's answer."""
        from gateway.learning.book import Book
        from gateway.learning.quality_report import quality_of

        if route not in running.policy.routes:
            raise UnknownModel(f"no route is called {route!r}", param="route")
        with _reporting():
            book = Book(running.ledger_url)
            try:
                return asdict(quality_of(route, book.rows(route)))
            finally:
                book.close()

    @routes.get("/refusals")
    def refusals() -> dict[str, Any]:
        """Return how many requests this process has refused since its start, by reason and key."""
        return {"data": running.refusals.report()}

    cache_routes(routes, running)
    app.include_router(routes)
    health_routes(app, running)
