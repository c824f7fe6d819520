"""The pages over a million requests, some of them with hostile names: whole, short and exact."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from bench.millions import RARE, Mix, add_up, audit, fill
from tests.dashboard.support import VIEWS, Dashboard, policy_text, reply, visitor_of
from tests.support.gateway_app import frugal_serve
from tests.support.months import HOSTILE
from tests.support.threaded import upstream_in_thread

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNT = 1_000_000
MIX = Mix(days=60, models=3, routes=2, tenants=3, keys=6, odd=HOSTILE)
MOST_BYTES = 300_000


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    path = tmp_path_factory.mktemp("million") / "ledger.db"
    end_us = int((time.time() - 60) * 1e6)
    fill(path, COUNT, end_us=end_us, mix=MIX)
    audit(path, COUNT, end_us=end_us, mix=MIX)
    add_up(path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def big(ledger):
    with (
        upstream_in_thread(reply) as upstream,
        frugal_serve(policy_text(upstream.url).replace("auto:", "route-0:"), ledger.parent) as run,
    ):
        yield Dashboard(run)


@pytest.fixture
def look(chromium, big):
    return lambda: visitor_of(chromium, big)


async def test_every_page_shows_its_numbers_in_few_bytes(look):
    sent = {}
    for view in VIEWS:
        async with look() as visitor:
            received = await _received(visitor.page)
            page = await visitor.see(f"{view}?range=90d")
            await expect(page.get_by_role("heading", level=2).first).to_be_visible()
            await expect(page.get_by_role("alert")).to_have_count(0)
            sent[view] = sum(received)

    assert {view: many for view, many in sent.items() if not 0 < many <= MOST_BYTES} == {}


async def _received(page):
    """Return a list that grows by the bytes of each file as it arrives."""
    network, received = await page.context.new_cdp_session(page), []
    network.on("Network.loadingFinished", lambda told: received.append(told["encodedDataLength"]))
    await network.send("Network.enable")
    return received


async def test_the_overview_is_what_the_lines_add_up_to(look, ledger):
    wanted = "SELECT count(*), sum(cost_nano_usd), sum(cache = 'exact') FROM entry"
    with closing(sqlite3.connect(ledger)) as connection:
        requests, nano, exact = connection.execute(wanted).fetchone()
    async with look() as visitor:
        page = await visitor.see("overview?range=90d")

        def tile(name):
            return page.locator(".tile").filter(has=page.get_by_text(name, exact=True))

        spend = tile("Spend").locator(".tile-value")
        await expect(spend).to_have_text(f"${nano / 1e9:,.2f}")
        await expect(spend).to_have_attribute(
            "title", re.compile(f"{nano // 10**9:,}.{nano % 10**9:09}".rstrip("0"))
        )
        await expect(tile("Requests").locator(".tile-value")).to_have_attribute(
            "title", f"{requests:,}"
        )
        await expect(tile("Cache hits")).to_contain_text(f"exact {exact / requests:.1%}")

    assert requests == COUNT


@pytest.mark.parametrize("by", ["key", "tag"])
async def test_hostile_names_among_a_million_are_shown_as_they_are(look, by):
    async with look() as visitor:
        page = await visitor.see(f"spend?range=90d&by={by}")
        table = page.get_by_role("table", name=f"Spend by {by}")

        for name in HOSTILE:
            await expect(table.get_by_text(name, exact=True)).to_be_visible()
        assert await page.title() == "Spend · frugal-gateway"
        assert await page.locator("main img, main script").count() == 0


async def test_a_rare_key_is_found_and_its_last_request_opened(look):
    async with look() as visitor:
        page = await visitor.see(f"requests?range=90d&key={RARE}")
        links = page.locator("a[data-request]")
        await expect(links.first).to_be_visible()
        newest = f"req_{COUNT - 50_000 + 7:026d}"
        await expect(links.first).to_have_attribute("data-request", newest)
        await links.first.click()
        dialog = page.get_by_role("dialog")

        await expect(dialog.get_by_role("list", name="Steps, in order")).to_be_visible()
        await expect(dialog).to_contain_text(RARE)


async def test_one_request_of_a_million_is_found_by_its_id(look):
    name = f"req_{COUNT // 2:026d}"
    async with look() as visitor:
        page = await visitor.see(f"requests?range=90d&q={quote(name)}")

        await expect(page.locator("a[data-request]")).to_have_count(1)
        await expect(page.locator(f'a[data-request="{name}"]')).to_be_visible()
