"""What browsers report against the dashboard's content security policy, kept in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from gateway.api.guests import admin, check_host

MAX_REPORT_BYTES = 16 * 1024
"""Bytes of one report; what is longer is counted and not read."""

_KEPT = 64
_MAX_CHARS = 500
_TOLD = ("document-uri", "violated-directive", "effective-directive", "blocked-uri", "source-file")


@dataclass(slots=True)
class Violations:
    """The latest reports, and how many there were in all.

    Anyone who reaches the port may send one, so it holds few and short ones.
    """

    count: int = 0
    latest: deque[dict[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def add(self, raw: bytes) -> None:
        """Count a report, and keep what can be read of it."""
        self.count += 1
        try:
            found = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return
        told = found.get("csp-report") if isinstance(found, dict) else None
        if isinstance(told, dict):
            self.latest.append({k: str(told[k])[:_MAX_CHARS] for k in _TOLD if k in told})


def csp_routes(app: FastAPI) -> None:
    """Add `/admin/csp`: browsers post to it without a key, an admin reads it."""
    routes = APIRouter(prefix="/admin/csp", tags=["dashboard"])
    violations = Violations()

    @routes.post("", status_code=204, dependencies=[Depends(check_host)])
    async def report(request: Request) -> Response:
        """Take what a browser reports against the content security policy."""
        violations.add(await _body(request))
        return Response(status_code=204)

    @routes.get("", dependencies=[Depends(admin)])
    def reports() -> dict[str, Any]:
        """Return how many reports there were since the start, and the latest."""
        return {"count": violations.count, "data": list(violations.latest)}

    app.include_router(routes)


async def _body(request: Request) -> bytes:
    """Return a body within its limit; of a longer one nothing."""
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > MAX_REPORT_BYTES:
            return b""
    return bytes(read)
