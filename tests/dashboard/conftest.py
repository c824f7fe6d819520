"""One gateway with a month behind it, and one Chromium, for all tests of the dashboard."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.dashboard.support import (
    ADMIN_KEY,
    Dashboard,
    Visitor,
    policy_text,
    reply,
    visitor_of,
)
from tests.support.gateway_app import frugal_serve
from tests.support.months import HOSTILE, fill, fill_outcomes
from tests.support.threaded import upstream_in_thread

CHROMIUM = os.environ.get("FRUGAL_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# What does not come about on a machine that is busy is no failure before this.
expect.set_options(timeout=30_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none."""
    if CHROMIUM is None:
        mark = pytest.mark.skip(reason="needs Chromium; `make browser` installs it")
        for item in items:
            if "/tests/dashboard/" in item.path.as_posix():
                item.add_marker(mark)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Run a gateway whose ledger has a month of traffic, some of it with hostile names."""
    folder = tmp_path_factory.mktemp("dashboard")
    now = time.time()
    fill(folder / "ledger.db", 6_000, now_s=now, days=60, names=HOSTILE)
    fill_outcomes(folder / "ledger.db", now_s=now)
    with (
        upstream_in_thread(reply) as upstream,
        frugal_serve(policy_text(upstream.url), folder) as running,
    ):
        yield Dashboard(running)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest.fixture
def visit(chromium: Browser, served: Dashboard):
    """Return a way to open the dashboard with a key, in a profile of its own."""

    @asynccontextmanager
    async def visiting(key: str | None = ADMIN_KEY, **options) -> AsyncIterator[Visitor]:
        async with visitor_of(chromium, served, key, **options) as visitor:
            yield visitor

    return visiting
