"""The gateway in this process: the real application behind an HTTP client, no socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway.app import create_app
from gateway.settings import Settings
from policies.schema import Policy


@asynccontextmanager
async def in_process(policy: Policy, *, ledger: str) -> AsyncIterator[httpx.AsyncClient]:
    """Start the gateway of a policy, and stop it in the end; `ledger` is a URL."""
    app = create_app(Settings(ledger=ledger), policy).public
    async with _lifespan(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    """Play the server's side of ASGI's lifespan, which httpx leaves out."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await _step("startup", to_app, from_app)
    try:
        yield
    finally:
        await _step("shutdown", to_app, from_app)
        await task


async def _step(
    name: str, to_app: asyncio.Queue[dict[str, Any]], from_app: asyncio.Queue[dict[str, Any]]
) -> None:
    await to_app.put({"type": f"lifespan.{name}"})
    answer = await from_app.get()
    if answer["type"] != f"lifespan.{name}.complete":
        raise RuntimeError(f"{name} of the gateway failed: {answer.get('message')}")
