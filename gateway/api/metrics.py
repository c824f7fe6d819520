"""`/metrics` on the admin port, for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response

from gateway.access.keys import is_loopback
from gateway.api.guests import check_host, reader
from gateway.api.standing import bundle_certificate
from gateway.telemetry.engines import all_engines
from gateway.telemetry.looks import Look
from gateway.telemetry.metrics import Scrape, exposition
from gateway.telemetry.process import Figures
from gateway.telemetry.readings import read_ledger
from gateway.telemetry.slow import Fresh, look_up
from gateway.telemetry.tally import Tally

if TYPE_CHECKING:
    from gateway.app import Running

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def metrics_routes(app: FastAPI, running: Running, now_s: Callable[[], float]) -> None:
    """Add `/metrics`. Loopback needs no key; from elsewhere a reader's is asked for."""
    tally = Look(Tally(running.spool_url, now_s(), _tenants(running)).look)
    sums = Look(lambda: read_ledger(running.ledger_url))
    slow = Look(
        Fresh(
            lambda: look_up(running, lambda name: bundle_certificate(running.policy.routes[name])),
            running.tick,
        )
    )

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        check_host(request)
        if not is_loopback(request.client.host if request.client else None):
            reader(request)
        near, policy = running.near, running.policy
        tallied, ledger, stands = await asyncio.gather(tally(), sums(), slow())
        scrape = Scrape(
            tallied=tallied,
            ledger=ledger,
            slow=stands,
            semantic=await near.report() if near else None,
            max_errors={
                name: route.cache.semantic.max_error
                for name, route in policy.routes.items()
                if route.cache.semantic is not None
            },
            is_ready=running.is_ready,
            refused=await asyncio.to_thread(running.refusals.by_code),
            workers=await _workers(running),
            engines=await all_engines(_sockets(running)),
        )
        return Response(await asyncio.to_thread(exposition, scrape), media_type=_TEXT)


def _tenants(running: Running) -> set[str]:
    """Return the tenants that the policy names: they are told apart before any others."""
    policy = running.policy
    return {key.tenant for key in policy.access.keys} | set(policy.limits.tenants)


async def _workers(running: Running) -> dict[str, Figures]:
    if running.board is None:
        return {}
    number, own = running.board.own()
    return {**await asyncio.to_thread(running.board.others), number: own}


def _sockets(running: Running) -> Iterator[tuple[str, Path]]:
    for name, model in running.policy.models.items():
        socket = running.site.socket(name, model) if running.site is not None else None
        if socket is not None:
            yield name, socket
