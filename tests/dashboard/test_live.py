"""A page that is watched comes to show what happened, whatever befalls the stream that tells it."""

from __future__ import annotations

import asyncio
import re
from itertools import count

import pytest
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIVE = re.compile("/reports/live")
OVERVIEW = re.compile("/reports/overview")


def _told(*requests: int) -> str:
    """Return a stream that tells of so many requests, one event after the other, and ends."""
    return "".join(f'event: totals\ndata: {{"requests": {each}}}\n\n' for each in requests)


class Watch:
    """Counts the reports that a page asks for, and lets each through when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()
        self.may.set()

    async def __call__(self, route) -> None:
        self.asked += 1
        await self.may.wait()
        await route.continue_()

    async def until(self, count: int) -> None:
        """Wait until a page has asked so many times."""
        async with asyncio.timeout(20):
            while self.asked < count:  # noqa: ASYNC110 - a page tells nobody
                await asyncio.sleep(0.02)


@pytest.fixture
async def watch():
    return Watch()


async def test_news_that_a_stream_told_before_it_broke_is_shown(visit, watch):
    async with visit() as visitor:
        page, tells = visitor.page, count(1)
        await page.route(OVERVIEW, watch)
        await page.route(
            LIVE,
            lambda route: route.fulfill(
                body=_told(next(tells)), content_type="text/event-stream; charset=utf-8"
            ),
        )
        await visitor.see("overview")

        await watch.until(3)


async def test_news_amid_loading_is_not_lost(visit, watch):
    says = [1]
    async with visit() as visitor:
        page = visitor.page
        await page.route(OVERVIEW, watch)
        streams = Watch()

        async def tell(route):
            streams.asked += 1
            await route.fulfill(body=_told(*says), content_type="text/event-stream; charset=utf-8")

        await page.route(LIVE, tell)
        await visitor.see("overview")
        await watch.until(2)
        watch.may.clear()
        await page.get_by_role("link", name="7d").click()
        await watch.until(3)
        says[0] = 2
        await streams.until(streams.asked + 6)  # a second apart: long enough to be told of it
        watch.may.set()

        await watch.until(4)


async def test_a_page_that_reopens_is_refreshed_after_the_first_word(visit, watch):
    async with visit() as visitor:
        page = visitor.page
        await page.route(OVERVIEW, watch)
        await visitor.see("overview")

        await watch.until(2)
        await expect(page.get_by_role("button", name="Live")).to_be_visible()


async def test_a_refresh_leaves_who_reads_a_chart_where_they_were(visit, watch):
    async with visit() as visitor:
        page = visitor.page
        await page.route(OVERVIEW, watch)
        await visitor.see("overview?range=30d")
        chart = page.get_by_role("slider", name="Spend")
        await chart.focus()
        await page.keyboard.press("Home")
        first = await chart.get_attribute("aria-valuetext")
        seen = await chart.element_handle()
        asked = watch.asked
        visitor.dashboard.ask("What happens while one reads a chart?")
        await watch.until(asked + 1)
        await page.wait_for_function("e => !e.isConnected", arg=seen)

        await expect(chart).to_be_focused()
        await expect(chart).to_have_attribute("aria-valuetext", first)
