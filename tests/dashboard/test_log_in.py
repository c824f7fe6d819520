"""Who gets into the dashboard, and what they may do there."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.dashboard.support import ADMIN_KEY, READ_KEY, USER_KEY

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_key_is_exchanged_for_a_cookie_that_scripts_cannot_read(visit):
    async with visit(None) as visitor:
        page = visitor.page
        await page.goto(visitor.dashboard.url)
        await page.get_by_label("Admin or read-only key").fill(ADMIN_KEY)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()

        (cookie,) = await page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert await page.evaluate("document.cookie + JSON.stringify({...localStorage})") == "{}"
        assert ADMIN_KEY not in cookie["value"]


@pytest.mark.parametrize(
    ("key", "told"), [("sk-wrong", "not known"), (USER_KEY, "'admin' or 'read'")]
)
async def test_a_key_that_may_not_look_is_told_so(visit, key, told):
    async with visit(None) as visitor:
        page = visitor.page
        await page.goto(visitor.dashboard.url)
        await page.get_by_label("Admin or read-only key").fill(key)
        await page.keyboard.press("Enter")

        await expect(page.get_by_role("alert")).to_contain_text(told)
        await expect(page.get_by_label("Admin or read-only key")).to_be_focused()


async def test_logging_out_ends_the_session(visit):
    async with visit() as visitor:
        page = await visitor.see("spend")
        await page.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Admin or read-only key")).to_be_visible()
        await page.reload()

        await expect(page.get_by_label("Admin or read-only key")).to_be_visible()


async def test_a_session_that_ended_leads_to_the_log_in(visit):
    async with visit() as visitor:
        page = await visitor.see("overview")
        await page.context.clear_cookies()
        await page.get_by_role("link", name="Spend").click()

        await expect(page.get_by_label("Admin or read-only key")).to_be_visible()


async def test_who_may_only_read_sees_nothing_that_changes_things(visit):
    async with visit(READ_KEY) as visitor:
        page = await visitor.see("policy")

        await expect(page.get_by_text("read-only", exact=True)).to_be_visible()
        for name in ("Apply", "Check", "Plan", "Roll back"):
            await expect(page.get_by_role("button", name=name)).to_have_count(0)
        assert ADMIN_KEY not in await visitor.text()
