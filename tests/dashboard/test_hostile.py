"""Names and texts that try to be more than names and texts."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.dashboard.support import VIEWS
from tests.support.months import HOSTILE

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("by", ["key", "tag"])
async def test_a_hostile_name_is_shown_as_it_is_and_does_nothing(visit, by):
    async with visit() as visitor:
        page = await visitor.see(f"spend?range=90d&by={by}")
        table = page.get_by_role("table", name=f"Spend by {by}")

        for name in HOSTILE:
            await expect(table.get_by_text(name, exact=True)).to_be_visible()
        assert await page.title() == "Spend · frugal-gateway"
        assert await page.locator("main img, main script").count() == 0


async def test_a_hostile_name_filters_and_opens_like_any_other(visit):
    async with visit() as visitor:
        for name in HOSTILE:
            page = await visitor.see(f"requests?range=90d&key={quote(name)}")
            await expect(page.get_by_label("Key", exact=True)).to_have_value(name)
            await page.locator("a[data-request]").first.click()
            dialog = page.get_by_role("dialog")

            await expect(dialog.get_by_text(name, exact=True).first).to_be_visible()
            assert await dialog.locator("img, script").count() == 0


async def test_a_hostile_address_does_nothing(visit):
    words = quote("<img src=x onerror=alert(1)>\"'")
    async with visit() as visitor:
        for view in VIEWS:
            page = await visitor.see(
                f"{view}?range={words}&by={words}&q={words}&from={words}&open="
            )
            assert await page.locator("main img").count() == 0


async def test_a_formula_is_no_formula_in_an_export(visit):
    async with visit() as visitor:
        page = await visitor.see(f"requests?range=90d&key={quote(HOSTILE[3])}")
        async with page.expect_download() as waited:
            await page.get_by_role("button", name="Export CSV").click()
        text = (await (await waited.value).path()).read_text(encoding="utf-8")

        assert "'=HYPERLINK" in text
        assert ",=HYPERLINK" not in text.replace('"', "")


async def test_scripts_cannot_make_markup_even_if_they_tried_and_it_is_reported(visit, served):
    async with visit() as visitor:
        page = await visitor.see("overview")
        refused = "try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (e) { e.name }"
        assert await page.evaluate(refused) == "TypeError"
        while served.violations() == served.reported:  # noqa: ASYNC110 - it comes over HTTP
            await asyncio.sleep(0.05)
        served.reported += 1

    with served.admin() as client:
        told = client.get("/admin/csp").json()["data"][-1]
    assert told["effective-directive"] == "require-trusted-types-for"
