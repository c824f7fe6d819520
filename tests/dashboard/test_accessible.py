"""That everyone can use the dashboard: by keyboard, by ear, in the dark, on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.dashboard.support import ADMIN_KEY, VIEWS, serious

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = Path(__file__).parent / "axe" / "axe.min.js"


async def _findings(page):
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    return list(serious(await page.evaluate("axe.run(document, {resultTypes: ['violations']})")))


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious(visit, served, theme):
    request_id = served.ask("What is the capital of France?")
    found = {}
    async with visit(color_scheme=theme, reduced_motion="reduce") as visitor:
        for view in (*VIEWS, "spend?by=key&range=90d", f"requests?open={request_id}"):
            page = await visitor.see(view)
            if "open=" in view:
                await expect(page.get_by_role("list", name="Steps, in order")).to_be_visible()
            found[view] = await _findings(page)

    assert {view: lines for view, lines in found.items() if lines} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_serious_on_the_log_in(visit, theme):
    async with visit(None, color_scheme=theme) as visitor:
        await visitor.page.goto(visitor.dashboard.url)
        await expect(visitor.page.get_by_label("Admin or read-only key")).to_be_visible()

        assert await _findings(visitor.page) == []


async def test_everything_is_reached_by_keyboard_and_seen_to_be(visit):
    async with visit(None) as visitor:
        page = visitor.page
        await page.goto(visitor.dashboard.url)
        await expect(page.get_by_label("Admin or read-only key")).to_be_focused()
        await page.keyboard.type(ADMIN_KEY)
        await page.keyboard.press("Enter")
        await visitor.settle()
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        reached = []
        for _ in range(40):
            await page.keyboard.press("Tab")
            if (told := await page.evaluate(_FOCUS)) is None:
                break  # the end of the page
            reached.append(told)

        words = [told["name"] for told in reached]
        assert [told for told in reached if not told["outline"]] == []
        for name in (
            "Overview",
            "Providers",
            "24h",
            "90d",
            "Dates",
            "Export CSV",
            "Show as a table",
        ):
            assert name in words, words


_FOCUS = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const style = getComputedStyle(e);
  return {
    name: (e.getAttribute("aria-label") ?? e.innerText ?? "").trim(),
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
  };
}"""


async def test_a_phone_shows_every_page_without_scrolling_sideways(visit):
    async with visit(viewport={"width": 360, "height": 740}, is_mobile=True) as visitor:
        over = {}
        for view in VIEWS:
            await visitor.see(view)
            over[view] = await visitor.overflow()

    assert over == dict.fromkeys(VIEWS, 0)


async def test_the_theme_follows_the_system_until_one_is_chosen(visit):
    async with visit(color_scheme="dark") as visitor:
        page = await visitor.see("overview")
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = await page.evaluate(ground)
        await page.get_by_role("button", name="Use the light theme").click()
        light = await page.evaluate(ground)
        await page.reload()
        await visitor.settle()

        assert dark != light
        assert await page.evaluate(ground) == light


async def test_nothing_moves_for_who_wants_no_motion(visit):
    async with visit(reduced_motion="reduce") as visitor:
        page = await visitor.see("overview")

        moving = "document.getAnimations().filter(a => a.playState === 'running').length"
        assert await page.evaluate(moving) == 0


async def test_a_refresh_leaves_the_focus_where_it_was(visit, served):
    async with visit() as visitor:
        page = await visitor.see("overview")
        await expect(page.get_by_role("button", name="Live")).to_be_visible()
        button = page.get_by_role("button", name="Export CSV")
        await button.focus()
        async with page.expect_response(lambda r: "reports/overview" in r.url):
            served.ask("What else happens while one reads?")
        await visitor.settle()

        await expect(button).to_be_focused()
