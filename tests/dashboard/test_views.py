"""What each page shows, when all is well and when it is not."""

from __future__ import annotations

import asyncio
import csv
import io
import re

import pytest
from playwright.async_api import expect

from gateway.reporting.shapes import (
    Certificate,
    FalseHits,
    LearningStep,
    QualityReport,
    Range,
    RouteQuality,
)
from tests.dashboard.support import ADMIN_KEY, LONG_AGO, VIEWS

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPORTS = re.compile(r"/admin/(reports|policy)")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_page_opens_by_its_address(visit, view):
    async with visit() as visitor:
        page = await visitor.see(view)

        await expect(page.get_by_role("heading", level=1)).to_have_text(view.capitalize())
        await expect(page).to_have_title(f"{view.capitalize()} · frugal-gateway")
        current = page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")
        await expect(current).to_have_text(view.capitalize())
        await expect(page.get_by_role("heading", level=2).first).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
async def test_a_page_that_cannot_load_says_why_and_tries_again(visit, view):
    async with visit() as visitor:
        page = visitor.page
        refused = {"error": {"message": "the ledger does not answer", "type": "x", "code": "x"}}
        await page.route(REPORTS, lambda route: route.fulfill(status=503, json=refused))
        await visitor.see(view)
        await expect(page.get_by_role("alert").first).to_contain_text("the ledger does not answer")
        await page.unroute(REPORTS)
        await page.get_by_role("button", name="Try again").click()

        await expect(page.get_by_role("heading", level=2).first).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("view", VIEWS)
async def test_a_page_that_takes_long_says_that_it_loads(visit, view):
    async with visit() as visitor:
        page = visitor.page
        goes_on = asyncio.Event()

        async def hold(route):
            await goes_on.wait()
            await route.continue_()

        await page.route(REPORTS, hold)
        await page.goto(visitor.dashboard.url + view)
        await expect(page.get_by_role("status").filter(has_text="Loading")).to_be_attached()
        goes_on.set()
        await visitor.settle()

        await expect(page.get_by_role("heading", level=2).first).to_be_visible()


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("overview", "No requests in this time"),
        ("spend", "Nothing was spent in this time"),
        ("requests", "No requests in this time"),
    ],
)
async def test_a_time_without_traffic_is_said_to_be_empty(visit, view, told):
    async with visit() as visitor:
        page = await visitor.see(f"{view}?{LONG_AGO}")

        await expect(page.get_by_role("heading", name=told)).to_be_visible()


async def test_a_gateway_that_does_not_answer_is_said_to(visit):
    async with visit() as visitor:
        page = visitor.page
        await page.route(REPORTS, lambda route: route.abort())
        await visitor.see("overview")

        await expect(page.get_by_role("alert")).to_contain_text("does not answer")


# Overview


async def test_the_overview_tells_what_the_reports_tell(visit, served):
    async with visit() as visitor:
        page = visitor.page
        async with page.expect_response(re.compile("reports/overview")) as waited:
            await visitor.see("overview?range=30d")
        now = (await (await waited.value).json())["now"]
        spend = page.locator(".tile").filter(has=page.get_by_text("Spend", exact=True))

        await expect(spend.locator(".tile-value")).to_have_text(
            f"${now['spend_nano_usd'] / 1e9:,.2f}"
        )
        await expect(spend).to_contain_text("was $")


async def test_measured_and_calculated_savings_differ_in_words_and_in_form(visit):
    async with visit() as visitor:
        page = await visitor.see("overview?range=30d")
        measured, by_list, by_caches = (
            page.get_by_role("article").filter(has=page.get_by_role("heading", name=name))
            for name in ("Measured", "By list price", "By the caches")
        )

        await expect(measured).to_contain_text("95% interval")
        await expect(measured.get_by_role("img")).to_have_attribute(
            "aria-label", re.compile("between")
        )
        for calculated in (by_list, by_caches):
            await expect(calculated).to_contain_text("A calculation, not a measurement")
            assert await calculated.evaluate("e => getComputedStyle(e).borderTopStyle") == "dashed"
        assert await measured.evaluate("e => getComputedStyle(e).borderTopStyle") == "solid"


async def test_the_period_before_can_be_left_out_and_the_address_keeps_it(visit):
    async with visit() as visitor:
        page = await visitor.see("overview?range=7d")
        await expect(page.locator(".tile-before").first).to_be_visible()
        await page.get_by_label("Compare with the period before").uncheck()
        await expect(page.locator(".tile-before")).to_have_count(0)
        await page.reload()
        await visitor.settle()

        await expect(page.locator(".tile-before")).to_have_count(0)
        await expect(page).to_have_url(re.compile("compare=off"))


async def test_a_request_shows_up_while_one_watches(visit, served):
    async with visit() as visitor:
        page = await visitor.see("overview")
        await expect(page.get_by_role("button", name="Live")).to_be_visible()
        value = (
            page.locator(".tile")
            .filter(has=page.get_by_text("Requests", exact=True))
            .locator(".tile-value")
        )
        before = await value.inner_text()
        served.ask("What is the capital of France, live?")

        await expect(value).not_to_have_text(before)


# Moving about


async def test_pages_and_filters_are_in_the_address_and_go_back(visit):
    async with visit() as visitor:
        page = await visitor.see("overview")
        await page.get_by_role("link", name="30d").click()
        await page.get_by_role("link", name="Spend").click()
        await visitor.settle()
        await page.get_by_role("link", name="Tenant").click()
        await expect(page.get_by_role("heading", name="Spend by tenant")).to_be_visible()
        await expect(page).to_have_url(re.compile(r"spend\?range=30d&by=tenant$"))
        await page.go_back()
        await expect(page.get_by_role("heading", name="Spend by model")).to_be_visible()
        await page.go_back()

        await expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()


async def test_a_page_that_another_version_no_longer_has_says_so_and_is_loaded_anew(visit):
    async with visit() as visitor:
        page = await visitor.see("overview")
        await page.route("**/views/spend.js", lambda route: route.fulfill(status=404))
        await page.get_by_role("link", name="Spend").click()
        await expect(page.get_by_role("alert")).to_contain_text("another version")
        await page.unroute("**/views/spend.js")
        await page.get_by_role("button", name="Try again").click()

        await expect(page.get_by_role("heading", name="Spend by model")).to_be_visible()


async def test_dates_of_ones_own_can_be_asked_for(visit):
    async with visit() as visitor:
        page = await visitor.see("spend")
        await page.locator("summary", has_text="Dates").click()
        await page.get_by_label("From (UTC)").fill("2020-01-01T00:00")
        await page.get_by_label("To (UTC)").fill("2020-01-02T00:00")
        await page.get_by_role("button", name="Show", exact=True).click()

        await expect(page.get_by_role("heading", name="Nothing was spent")).to_be_visible()
        await expect(page).to_have_url(re.compile("from=2020-01-01T00%3A00Z"))


async def test_the_pages_work_behind_a_prefix(visit, served):
    async with visit(None) as visitor:
        page, prefix = visitor.page, "http://127.0.0.1:9/team/tools/"

        async def forward(route):
            asked = route.request.url.replace(prefix, f"{served.served.admin_url}/")
            headers = {**await route.request.all_headers(), "host": "127.0.0.1"}
            headers.pop("origin", None)
            answer = await route.fetch(url=asked, headers=headers, max_redirects=0)
            await route.fulfill(response=answer)

        await page.route(f"{prefix}**", forward)
        await page.route("**/reports/live", lambda route: route.abort())  # it has no end
        await page.goto(f"{prefix}dashboard/spend?range=30d")
        await page.get_by_label("Admin or read-only key").fill(ADMIN_KEY)
        await page.keyboard.press("Enter")
        await (
            page.get_by_role("region", name="Spend by model")
            .get_by_role("link", name="tiny")
            .click()
        )

        await expect(page.locator("a[data-request]").first).to_be_visible()
        await expect(page).to_have_url(f"{prefix}dashboard/requests?range=30d&model=tiny")


# Spend


async def test_the_export_is_what_is_shown(visit):
    async with visit() as visitor:
        page = await visitor.see("spend?range=30d&by=route")
        shown = (
            await page.get_by_role("region", name="Spend by route")
            .locator("tbody th")
            .all_inner_texts()
        )
        async with page.expect_download() as waited:
            await page.get_by_role("link", name="Export CSV").click()
        path = await (await waited.value).path()
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))

        for name in shown:
            assert any(name in row for row in rows), name


async def test_a_budget_shows_its_forecast_as_one(visit):
    async with visit() as visitor:
        page = await visitor.see("spend")
        card = page.get_by_role("article").first

        await expect(card).to_contain_text("of $60.00 a month")
        await expect(card.get_by_role("img").last).to_be_visible()


# Charts


async def test_a_chart_is_read_by_keyboard_and_as_a_table(visit):
    async with visit() as visitor:
        page = await visitor.see("overview?range=30d")
        chart = page.get_by_role("slider", name="Spend")
        await chart.focus()
        await page.keyboard.press("Home")
        first = await chart.get_attribute("aria-valuetext")
        await page.keyboard.press("ArrowRight")
        second = await chart.get_attribute("aria-valuetext")
        figure = page.locator("figure").filter(has=chart)
        await figure.locator("summary").press("Enter")

        assert first != second
        assert re.match(r"\d+ \w{3}.*: spend \$", second)
        await expect(figure.get_by_role("row")).to_have_count(31)
        await expect(figure.locator(".readout")).to_be_hidden()


# Requests


async def test_requests_are_filtered_and_one_is_opened_as_a_waterfall(visit, served):
    request_id = served.ask("Which city lies on the Seine?")
    async with visit() as visitor:
        page = await visitor.see("requests")
        await page.get_by_label("Key", exact=True).fill("web")
        await page.get_by_label("State").select_option("settled")
        await expect(page).to_have_url(re.compile("key=web&state=settled"))
        await visitor.settle()
        await page.locator(f'a[data-request="{request_id}"]').click()
        dialog = page.get_by_role("dialog")
        steps = dialog.get_by_role("list", name="Steps, in order").get_by_role("listitem")

        await expect(steps).to_have_count(3)
        await expect(steps.nth(1)).to_contain_text("rejected")
        await expect(steps.nth(1)).to_contain_text("confidence 0.")
        await expect(steps.nth(2)).to_contain_text("accepted")
        await expect(page).to_have_url(re.compile(request_id))
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        await expect(page.locator(f'a[data-request="{request_id}"]')).to_be_focused()
        await expect(page).not_to_have_url(re.compile(request_id))


async def test_a_list_goes_on_where_it_stopped(visit):
    async with visit() as visitor:
        page = await visitor.see("requests?range=30d")
        rows = page.get_by_role("region", name="Requests, newest first").locator("tbody tr")
        await expect(rows).to_have_count(50)
        await page.get_by_role("button", name="Show more").click()
        await expect(rows).to_have_count(100)

        ids = await page.locator("a[data-request]").evaluate_all(
            "all => all.map(a => a.dataset.request)"
        )
        assert len(set(ids)) == 100


async def test_what_no_request_matches_is_said_and_cleared(visit):
    async with visit() as visitor:
        page = await visitor.see("requests?key=nobody")
        await expect(page.get_by_role("heading", name="No request matches")).to_be_visible()
        await page.get_by_role("link", name="Clear filters").click()

        await expect(page.locator("a[data-request]").first).to_be_visible()


# Quality, in states that take weeks to come about


def _route(**changes):
    found = {
        "route": "auto", "reference": "large", "drawn": 400, "losses": 30, "unknown": 2,
        "rate": 0.075, "low": 0.053, "high": 0.11, "floor": 0.02, "labels": {"judge": 400},
        "models": (), "alarms": (), "steps": (), "false_hits": (),
        "certificate": Certificate(
            state="lost", why="losses have risen", stage="rules", bound=None, promised=None,
            promised_certainty=None, floor=0.02, certainty=0.95, labeller="judge",
            labeller_error=0.06, valid_until=None, looks=3, labels=400, bundle=None,
        ),
    }  # fmt: skip
    return RouteQuality(**found | changes)


async def test_a_floor_that_is_broken_is_said_in_words(visit):
    alarm = LearningStep(
        at="2026-11-03T10:00:00Z", step=4, kind="drift_alarm", detail={"test": "losses"}
    )
    hits = FalseHits(
        route="auto", tenant="platform", state="exact only", audited=90, wrong=9, rate=0.1,
        low=0.05, high=0.18, budget=0.01, stops=1,
    )  # fmt: skip
    told = QualityReport(
        range=Range(since="2026-11-01T00:00:00Z", until="2026-11-02T00:00:00Z", step="hour"),
        routes=(_route(alarms=(alarm,), false_hits=(hits,)),),
    )
    async with visit() as visitor:
        page = visitor.page
        await page.route("**/reports/quality*", lambda route: route.fulfill(
            body=told.model_dump_json(), content_type="application/json"))  # fmt: skip
        await visitor.see("quality")

        loss, certificate, false_hits = await page.get_by_role("article").all_inner_texts()
        assert "above the floor" in loss
        assert "7.5%" in loss
        assert "lost" in certificate
        assert "asks its reference until it is proven again" in certificate
        assert "losses have risen" in certificate
        assert "exact only" in false_hits
        await expect(page.get_by_role("note")).to_contain_text("drift alarm")
        pictures = page.get_by_role("img", name=re.compile("at most 2.0% is allowed"))
        await expect(pictures).to_be_visible()
