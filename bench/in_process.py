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

_Message = dict[str, Any]


@asynccontextmanager
async def in_process(policy: Policy, *, ledger: str) -> AsyncIterator[httpx.AsyncClient]:
    """Start the gateway of a policy, and stop it in the end; `ledger` is a URL."""
    app = create_app(Settings(ledger=ledger), policy).public
    async with lifespan(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Play the server's side of ASGI's lifespan, which httpx leaves out."""
    to_app: asyncio.Queue[_Message] = asyncio.Queue()
    from_app: asyncio.Queue[_Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, to_app.get, from_app.put))

    async def step(name: str) -> None:
        to_app.put_nowait({"type": f"lifespan.{name}"})
        answer = asyncio.create_task(from_app.get())
        # An application that dies without a word must not be waited for.
        await asyncio.wait((answer, task), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await task
            raise RuntimeError(f"the gateway ended before its {name} was complete")
        if answer.result()["type"] != f"lifespan.{name}.complete":
            raise RuntimeError(f"{name} of the gateway failed: {answer.result().get('message')}")

    await step("startup")
    try:
        yield
    finally:
        await step("shutdown")
        await task
