"""What the local engines say of themselves, asked over their sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

WITHIN_S = 1.0
_AWAY = """\
# HELP frugal_engine_ready Whether the model is loaded.
# TYPE frugal_engine_ready gauge
frugal_engine_ready 0
"""


async def engine_metrics(socket: Path) -> str:
    """Return an engine's own `/metrics`; of one that does not answer, that it is not ready."""
    import httpx

    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            httpx.AsyncClient(transport=transport, base_url="http://engine") as client,
        ):
            answer = await client.get("/metrics")
    except (httpx.HTTPError, OSError, TimeoutError):
        return _AWAY
    return answer.text if answer.status_code == 200 else _AWAY


async def all_engines(sockets: Iterable[tuple[str, Path]]) -> Mapping[str, str]:
    """Return what every engine says, by its model."""
    named = list(sockets)
    texts = await asyncio.gather(*(engine_metrics(socket) for _, socket in named))
    return {model: text for (model, _), text in zip(named, texts, strict=True)}
