"""The admin port: health, the running policy, and the ledger row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request

from gateway.access.keys import ANONYMOUS, Caller, KeyRing, is_loopback_host
from gateway.api.public import caller_from, health_routes
from gateway.errors import Forbidden, InvalidRequest
from policies.show import masked

if TYPE_CHECKING:
    from gateway.app import Running


def admin_routes(app: FastAPI, running: Running) -> None:
    """Add the admin endpoints to `app`; each asks for an admin key, or loopback if that is open."""
    keys = KeyRing(running.policy.access)
    allowed = {running.policy.server.admin_host, *running.policy.server.allowed_hosts}

    def admin(request: Request) -> Caller:
        host = request.headers.get("host", "")
        if not is_loopback_host(host.encode("latin-1")) and host.partition(":")[0] not in allowed:
            raise InvalidRequest(f"the Host header {host!r} is not one of server.allowed_hosts")
        caller = caller_from(keys, request)
        if caller is not ANONYMOUS and not caller.is_admin:
            raise Forbidden("the admin port needs a key with the scope 'admin'")
        return caller

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

        assert running.ledger is not None, "the lifespan has begun before a request is served"
        return {"data": request_rows(running.ledger.url, since=since, limit=limit)}

    app.include_router(routes)
    health_routes(app, running)
