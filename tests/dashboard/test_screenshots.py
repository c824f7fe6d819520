"""The pictures in the user's guide: made of the real thing by `make screenshots`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.dashboard.support import ADMIN_KEY, Dashboard, Visitor, policy_text, reply
from tests.support.gateway_app import frugal_serve
from tests.support.months import fill, fill_outcomes
from tests.support.threaded import upstream_in_thread

pytestmark = pytest.mark.asyncio(loop_scope="session")

TARGET = os.environ.get("FRUGAL_SCREENSHOTS")
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Serve a month of a busy company, without hostile names."""
    if TARGET is None:
        pytest.skip(reason="pictures are made by `make screenshots`")
    folder = tmp_path_factory.mktemp("pictures")
    now = time.time()
    fill(folder / "ledger.db", 150_000, now_s=now, days=60)
    fill_outcomes(folder / "ledger.db", now_s=now)
    with (
        upstream_in_thread(reply) as upstream,
        frugal_serve(policy_text(upstream.url), folder) as running,
    ):
        yield Dashboard(running)


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(chromium, shown, request):
    """Log in, in the theme that a test asks for."""
    theme = getattr(request, "param", "light")
    context = await chromium.new_context(
        viewport={"width": 1180, "height": 740}, color_scheme=theme, reduced_motion="reduce"
    )
    yield await Visitor.arrive(context, shown, ADMIN_KEY)
    await context.close()


async def _keep(page, name):
    path = Path(TARGET) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=path, animations="disabled")

    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("overview", "overview?range=30d"),
        ("spend", "spend?range=30d"),
        ("quality", "quality?range=30d"),
        ("requests", "requests"),
        ("providers", "providers"),
    ],
)
async def test_a_picture_of_each_page(visitor, name, address):
    page = await visitor.see(address)
    if name == "requests":
        await page.set_viewport_size({"width": 1180, "height": 560})  # many rows, many bytes
    await _keep(page, name)


async def test_a_picture_of_a_plan(visitor):
    page = await visitor.see("policy")
    area = page.get_by_label("Policy as YAML")
    await area.fill((await area.input_value()).replace("threshold: 0.72", "threshold: 0.6"))
    await page.get_by_role("button", name="Plan").click()
    await expect(page.get_by_role("heading", name="Plan")).to_be_visible(timeout=60_000)
    await area.evaluate("e => { e.scrollTop = e.scrollHeight }")
    await _keep(page, "policy")


async def test_a_picture_of_the_budgets(visitor):
    page = await visitor.see("spend?range=30d")
    await page.get_by_role("heading", name="Budgets").evaluate("e => e.scrollIntoView()")
    await _keep(page, "budgets")


async def test_a_picture_of_one_request(visitor, shown):
    request_id = shown.ask("What is the capital of France?")
    page = await visitor.see(f"requests?open={request_id}")
    await expect(page.get_by_role("list", name="Steps, in order")).to_be_visible()
    await _keep(page, "one-request")


@pytest.mark.parametrize("visitor", ["dark"], indirect=True)
async def test_a_picture_in_the_dark(visitor):
    await visitor.see("overview?range=30d")
    await _keep(visitor.page, "overview-dark")


async def test_a_picture_on_a_phone(visitor):
    await visitor.page.set_viewport_size({"width": 390, "height": 780})
    await visitor.see("overview?range=30d")
    await _keep(visitor.page, "phone")
