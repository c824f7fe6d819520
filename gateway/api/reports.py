"""The admin port's reports: what dashboards and scripts read; a key that may only read will do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response

from gateway.api.guests import reader
from gateway.errors import InvalidRequest, LedgerUnavailable, NotFound
from gateway.money.errors import LedgerError, ReportError
from gateway.reporting.shapes import (
    Dimension,
    Overview,
    RequestDetail,
    RequestList,
    Spend,
    Step,
)

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.reporting.window import Window

Since = Annotated[str, Query(max_length=64, description="24h, 7d, 2w, or a date or moment (UTC)")]
Until = Annotated[str | None, Query(max_length=64, description="The same; default: now")]
Steps = Annotated[Step | None, Query(description="Default: as fits the time")]
Name = Annotated[str | None, Query(max_length=256)]


@contextmanager
def reporting() -> Iterator[None]:
    """Raise InvalidRequest for what cannot be asked, LedgerUnavailable where nobody answers."""
    try:
        yield
    except ReportError as exc:
        raise InvalidRequest(str(exc), param="since") from exc
    except LedgerError as exc:
        raise LedgerUnavailable(str(exc)) from exc


def asked(
    request: Request, since: Since = "24h", until: Until = None, step: Steps = None
) -> Window:
    """Return the time that a report is asked of. Raises InvalidRequest."""
    from gateway.reporting.window import window

    running: Running = request.app.state.running
    with reporting():
        return window(since, until, step, datetime.fromtimestamp(running.wall(), UTC))


Asked = Annotated[Any, Depends(asked)]


def reports_routes(app: FastAPI, running: Running) -> None:
    """Add the reports to `app`; each asks for a reader."""
    routes = APIRouter(prefix="/admin/reports", dependencies=[Depends(reader)], tags=["reports"])

    @routes.get("/overview")
    def overview(within: Asked, compare: bool = False) -> Overview:
        """Return totals and a series; with `compare`, the totals of the time before as well."""
        from gateway.reporting.overview import overview as found

        with reporting():
            return found(running.ledger_url, within, compare=compare)

    @routes.get("/spend", response_model=Spend)
    def spend(
        within: Asked,
        by: Dimension = "model",
        as_file: Annotated[str, Query(alias="format", pattern="^(json|csv)$")] = "json",
    ) -> Any:
        """Return where money went; `format=csv` gives what is shown as a file."""
        from gateway.reporting.spend import as_csv
        from gateway.reporting.spend import spend as found

        with reporting():
            told = found(running.ledger_url, by, within)
        if as_file == "json":
            return told
        name = f'attachment; filename="spend-by-{by}.csv"'
        return Response(as_csv(told), media_type="text/csv; charset=utf-8",
                        headers={"content-disposition": name})  # fmt: skip

    @routes.get("/requests")
    def requests(
        within: Asked,
        route: Name = None,
        model: Name = None,
        key: Name = None,
        tenant: Name = None,
        tag: Name = None,
        state: Name = None,
        cache: Name = None,
        q: Annotated[str | None, Query(max_length=256, description="An id, or words")] = None,
        cursor: Annotated[str | None, Query(max_length=512)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    ) -> RequestList:
        """Return one row a request, newest first, a page at a time."""
        from gateway.reporting.requests import Wanted, request_list

        wanted = Wanted(route, model, key, tenant, tag, state, cache, q or None)
        with reporting():
            return request_list(running.ledger_url, within, wanted, cursor=cursor, limit=limit)

    @routes.get("/requests/{request_id}")
    def request(request_id: str) -> RequestDetail:
        """Return one request opened: its way, attempt by attempt."""
        from gateway.reporting.detail import request_detail

        stores = running.policy.privacy.store_texts
        with reporting():
            found = request_detail(running.ledger_url, request_id, stores_texts=stores)
        if found is None:
            raise NotFound(f"the ledger has no request {request_id[:80]!r}")
        return found

    app.include_router(routes)
