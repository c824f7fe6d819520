"""The pictures in the user's guide: made of the real thing by `make screenshots`."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import expect

from gateway.learning.book import Book
from tests.dashboard.support import ADMIN_KEY, USER_KEY, Dashboard, Visitor, policy_text, reply
from tests.support.gateway_app import asking, frugal_serve
from tests.support.months import fill, fill_outcomes
from tests.support.scripted_upstream import Hold
from tests.support.threaded import upstream_in_thread
from tests.support.traffic import rows_of, traffic

pytestmark = pytest.mark.asyncio(loop_scope="session")

TARGET = os.environ.get("FRUGAL_SCREENSHOTS")
MOST_BYTES = 150_000


HELD = "Summarise all of our tickets."
MORE_MODELS = """
  local:                                  # in an engine process on this machine
    provider: local
    checkpoint: demo/tiny
    price: {machine_hour_usd: 0.40}

routes:
  support:                                # at most 5 % may be worse than the reference, proven
    cascade:
      tiers: [tiny, large]
      confidence: learned
      target: {max_quality_loss: 0.05}
      audit: {share: 0.02}
      learning: {every: 1s}
  here:
    model: local
"""


class Company:
    """What answers in the pictures; one request is under way while its budget is looked at."""

    def __init__(self) -> None:
        self.hold = Hold()

    def __call__(self, received):
        answer = reply(received)
        return [self.hold, *answer] if HELD.encode() in received.body else answer


@pytest.fixture(scope="module")
def upstream():
    company = Company()
    with upstream_in_thread(company) as server:
        server.hold = company.hold
        yield server


@pytest.fixture(scope="module")
def shown(tmp_path_factory, upstream):
    """Serve a month of a busy company, without hostile names."""
    if TARGET is None:
        pytest.skip(reason="pictures are made by `make screenshots`")
    pytest.importorskip("torch", reason="needs the extra 'local'")
    folder = tmp_path_factory.mktemp("pictures")
    now = time.time()
    fill(folder / "ledger.db", 150_000, now_s=now, days=60)
    fill_outcomes(folder / "ledger.db", now_s=now)
    _audits(folder / "ledger.db", now)
    text = policy_text(upstream.url).replace("\nroutes:\n", MORE_MODELS)
    with frugal_serve(text, folder) as running:
        dashboard = Dashboard(running)
        _until(dashboard, "quality", lambda told: told["routes"][0]["certificate"]["bound"])
        _until(dashboard, "providers", _engine_is_ready)
        for number in range(5):
            dashboard.ask(f"What is {number} plus {number}?")
            _post(dashboard, asking("What is 3 plus 4?", model="here", max_tokens=16))
        yield dashboard


def _audits(path, now_s):
    """Write down audits of the route `support`, whose drafts keep what their signs promise."""
    found = traffic(600, start=int((now_s - 7200) * 1e6), model="tiny")
    rows = [
        replace(row, served=row.quality is not None and row.quality > 0.85)
        for row in rows_of(found, route="support")
    ]
    book = Book(f"sqlite:///{path}")
    book.add(rows)
    book.close()


def _engine_is_ready(told):
    return any((each["engine"] or {}).get("ready") for each in told["providers"])


def _until(dashboard, report, holds):
    deadline = time.monotonic() + 120
    with dashboard.admin() as client:
        while not holds(told := client.get(f"/admin/reports/{report}").json()):
            assert time.monotonic() < deadline, told
            time.sleep(0.2)


def _post(dashboard, body):
    headers = {"authorization": f"Bearer {USER_KEY}"}
    with dashboard.served.client(headers=headers) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


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


async def test_a_picture_of_the_budgets(visitor, shown, upstream):
    body = asking(HELD, model="large", max_tokens=600_000)
    under_way = asyncio.create_task(asyncio.to_thread(_post, shown, body))
    await asyncio.to_thread(
        _until, shown, "budgets",
        lambda told: any(each["reserved_nano_usd"] for each in told["budgets"]),
    )  # fmt: skip
    page = await visitor.see("spend?range=30d")
    await expect(page.locator(".burn .reserved")).to_have_count(1)
    held = page.get_by_role("article").filter(has=page.locator(".reserved"))
    await held.evaluate("e => e.scrollIntoView({block: 'end'})")
    await _keep(page, "budgets")
    upstream.loop.call_soon_threadsafe(upstream.hold.release)
    await under_way


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
