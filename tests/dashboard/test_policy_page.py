"""The policy's page: to edit, check, plan, apply and roll back."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_fault_is_named_with_its_line_and_one_is_led_to_it(visit):
    async with visit() as visitor:
        page = await visitor.see("policy")
        area = page.get_by_label("Policy as YAML")
        text = await area.input_value()
        await area.fill(text.replace("cascade:", "cascad:"))
        await page.get_by_role("button", name="Check").click()
        problem = page.get_by_role("status", name="Result").get_by_role("button")
        await expect(problem.first).to_contain_text("cascad")
        await problem.first.click()
        chosen = "e => e.value.slice(e.selectionStart, e.selectionEnd)"

        await expect(area).to_be_focused()
        assert "cascad:" in await area.evaluate(chosen)
        await expect(page.locator(".gutter .bad")).to_have_count(1)


async def test_a_policy_is_planned_applied_and_rolled_back(visit, served):
    async with visit() as visitor:
        page = await visitor.see("policy")
        area = page.get_by_label("Policy as YAML")
        before = await area.input_value()
        await area.fill(before.replace("threshold: 0.72", "threshold: 0.9"))
        await page.get_by_role("button", name="Plan").click()
        result = page.get_by_role("status", name="Result")
        await expect(result.get_by_role("heading", name="Plan")).to_be_visible(timeout=20_000)
        # The ports that the command line gave are no change.
        await expect(result.get_by_role("heading", name="One change")).to_be_visible()

        await page.get_by_role("button", name="Apply").click()
        await page.get_by_role("dialog").get_by_role("button", name="Apply").click()
        await expect(result).to_contain_text("Applied as version")
        await expect(area).to_have_value(before.replace("threshold: 0.72", "threshold: 0.9"))
        with served.admin() as client:
            running = client.get("/admin/policy").json()
        assert running["routes"]["auto"]["cascade"]["confidence"]["threshold"] == 0.9

        await page.get_by_role("button", name="Roll back").first.click()
        await page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        await expect(result).to_contain_text("Rolled back")
        await expect(area).to_have_value(before)


async def test_an_edit_is_not_lost_to_an_answer_that_is_no(visit):
    async with visit() as visitor:
        page = await visitor.see("policy")
        area = page.get_by_label("Policy as YAML")
        await area.fill("version: 1\nroutes: [")
        await page.get_by_role("button", name="Apply").click()
        await expect(
            page.get_by_role("status", name="Result").get_by_role("button")
        ).not_to_have_count(0)

        await expect(area).to_have_value("version: 1\nroutes: [")
        await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_tab_indents_and_escape_lets_it_leave(visit):
    async with visit() as visitor:
        page = await visitor.see("policy")
        area = page.get_by_label("Policy as YAML")
        await area.fill("a:")
        await area.press("Home")
        await area.press("Tab")
        assert await area.input_value() == "  a:"
        await area.press("Escape")
        await area.press("Tab")

        await expect(area).not_to_be_focused()


async def test_an_edit_is_kept_while_another_page_is_looked_at(visit):
    async with visit() as visitor:
        page = await visitor.see("policy")
        area = page.get_by_label("Policy as YAML")
        before = await area.input_value()
        await area.fill(before + "# mine\n")
        await page.get_by_role("link", name="Spend").click()
        await expect(page.get_by_role("heading", name="Spend", level=1)).to_be_visible()
        await page.get_by_role("link", name="Policy").click()
        await expect(area).to_have_value(before + "# mine\n")
        await page.get_by_role("button", name="Discard it").click()

        await expect(area).to_have_value(before)
