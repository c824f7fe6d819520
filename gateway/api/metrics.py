"""`/metrics` on the admin port, for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response

from gateway.access.keys import is_loopback
from gateway.api.guests import check_host, reader
from gateway.money.errors import LedgerError, ReportError
from gateway.telemetry.metrics import Scrape, exposition
from gateway.telemetry.readings import Readings, read_ledger

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.pipeline import Pipeline

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_log = logging.getLogger(__name__)


def metrics_routes(app: FastAPI, running: Running, now_s: Callable[[], float]) -> None:
    """Add `/metrics`. Loopback needs no key; from elsewhere a reader's is asked for."""

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        check_host(request)
        if not is_loopback(request.client.host if request.client else None):
            reader(request)
        near, caches = running.near, running.caches
        scrape = Scrape(
            await asyncio.to_thread(_readings, running.ledger_url, now_s()),
            await near.report() if near else None,
            asdict(caches.exact.stats()) if caches else {},
            running.is_ready,
            await asyncio.to_thread(running.refusals.by_code),
            _early(running.pipeline),
        )
        return Response(await asyncio.to_thread(exposition, scrape), media_type=_TEXT)


def _early(pipeline: Pipeline | None) -> dict[str, tuple[int, float]]:
    own = {} if pipeline is None else pipeline.early.models
    return {model: (each.given_up, each.saved) for model, each in own.items() if each.given_up}


def _readings(url: str, now_s: float) -> Readings | None:
    try:
        return read_ledger(url, now_s)
    except (LedgerError, ReportError) as exc:
        _log.warning("a scrape could not read the ledger: %s", exc)
        return None
