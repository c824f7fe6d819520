"""What the pages show of things under way: an engine, money set aside, audits, alarms, hits."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from contextlib import contextmanager

import pytest
from playwright.async_api import expect

from gateway.learning.book import Book
from gateway.money.migrate import migrate_sqlite
from tests.dashboard.support import ADMIN_KEY, USER_KEY, Dashboard, visitor_of
from tests.support.gateway_app import asking, frugal_serve
from tests.support.months import HOSTILE
from tests.support.policies import CHEAP, DEAR, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, answer
from tests.support.semantic import THINGS, Contrary, in_other_words
from tests.support.threaded import upstream_in_thread
from tests.support.traffic import rows_of, traffic

pytestmark = pytest.mark.asyncio(loop_scope="session")
pytest.importorskip("torch", reason="needs the extra 'local'")

SECRETS = ("ada@example.org", "sk-abcdef0123456789abcdef")
PROMPT = f"Write to {SECRETS[0]} that the key is {SECRETS[1]}, please."
HELD = "hold this one"
ILL = "fail this one"
LOOK_AFTER = b"look after my"
_WITHIN_S = 60.0


class Upstream:
    """Answers at once, but for who asks to be held until somebody lets go."""

    def __init__(self) -> None:
        self.hold = Hold()
        self.contrary = Contrary()

    def __call__(self, received):
        if LOOK_AFTER in received.body:
            return self.contrary(received)
        is_large = received.json["model"] == "large"
        says = Says(
            f"Done for {SECRETS[0]}.",
            tokens=(20, 8),
            logprobs=None if is_large else [-0.01, -0.01, -0.01],
        )
        if ILL.encode() in received.body:
            return [answer({}, status="500 Ill")]
        if HELD.encode() in received.body:
            return [self.hold, *says(received)]
        return says(received)


def _text(url: str, hook: str) -> str:
    """Return a policy with an engine of its own, a route that learns and one that is audited."""
    models = {
        "tiny": {
            "provider": "local", "checkpoint": "demo/tiny", "quantization": "int8",
            "price": {"machine_hour_usd": 0.4},
        },
        "small": remote(url, price=CHEAP, logprobs=True),
        "large": remote(url, price=DEAR, max_output=200_000),
        "sick": remote(url),
    }  # fmt: skip
    tiers = ["small", "large"]
    learned = {
        "tiers": tiers, "confidence": "learned", "audit": {"share": 1},
        "target": {"max_quality_loss": 0.05}, "learning": {"every": "200ms"},
    }  # fmt: skip
    audited = {
        "tiers": tiers, "confidence": {"kind": "logprob", "threshold": 0.8},
        "audit": {"share": 1},
    }  # fmt: skip
    keys = [
        {"name": "boss", "tenant": "platform", "key": ADMIN_KEY, "scopes": ["admin"]},
        {"name": "web", "tenant": "platform", "key": USER_KEY},
    ]
    return policy(
        models,
        {
            "auto": {"cascade": learned},
            "audited": {"cascade": audited, "cache": {"exact": {"ttl": "1h"}}},
            "near": {
                "model": "large",
                "cache": {"semantic": {"max_error": 0.5, "audit": 1}},
            },
            "ill": {"model": "sick", "breaker": {"consecutive": 2, "open_for": "10m"}},
        },
        access={"keys": keys},
        limits={"budget": {"usd": 10, "per": "month", "at_limit": "warn"}},
        privacy={"store_texts": True},
        alerts={"url": hook, "events": ["drift", "learning", "breaker"]},
    )


@pytest.fixture(scope="module")
def upstream():
    answers = Upstream()
    with upstream_in_thread(answers) as server:
        server.hold = answers.hold
        yield server


@pytest.fixture(scope="module")
def hook():
    """Run what the gateway tells its alerts to."""
    with upstream_in_thread([[answer(b"", status="204 No Content")]]) as server:
        yield server


@pytest.fixture(scope="module")
def running(upstream, hook, tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    migrate_sqlite(folder / "ledger.db")
    with frugal_serve(_text(upstream.url, hook.url), folder) as served:
        yield Dashboard(served)


@pytest.fixture
def look(chromium, running):
    return lambda: visitor_of(chromium, running)


def _post(dashboard, body):
    headers = {"authorization": f"Bearer {USER_KEY}"}
    with dashboard.served.client(headers=headers) as client:
        return client.post("/v1/chat/completions", json=body, timeout=_WITHIN_S)


def _until(dashboard, path, holds):
    """Ask for a report until something holds of it, and return it."""
    deadline = time.monotonic() + _WITHIN_S
    with dashboard.admin() as client:
        while not holds(found := client.get(f"/admin/reports/{path}").json()):
            assert time.monotonic() < deadline, json.dumps(found)[:2000]
            time.sleep(0.1)
    return found


async def _told(hook, event):
    """Wait until the webhook was told of an event, and return what it was told."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            for received in list(hook.requests):
                if received.json["event"] == event:
                    return received.json
            await asyncio.sleep(0.05)


# A breaker


async def test_an_open_breaker_is_shown_and_the_webhook_told(look, running, hook):
    for _ in range(3):
        await asyncio.to_thread(_post, running, asking(ILL, model="ill"))
    told = await _told(hook, "breaker_open")
    async with look() as visitor:
        page = await visitor.see("providers")
        row = page.get_by_role("row").filter(has=page.get_by_text("sick", exact=True))
        await expect(row).to_contain_text("open")
        await expect(row).to_contain_text("100%")

    assert told["model"] == "sick"


# The engine


@contextmanager
def _busy(dashboard, threads=3):
    """Keep the engine at work as long as the block is entered."""
    over = threading.Event()
    body = asking("What is 17 plus 25?", model="tiny", max_tokens=400, temperature=1)

    def ask():
        while not over.is_set():
            with_luck = _post(dashboard, body)
            assert with_luck.status_code in (200, 503), with_luck.text

    workers = [threading.Thread(target=ask, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join(_WITHIN_S)


def _engine(report):
    return next(each["engine"] for each in report["providers"] if each["model"] == "tiny")


async def test_an_engine_at_work_shows_its_queue_batch_and_memory(look, running):
    await asyncio.to_thread(_until, running, "providers", lambda r: (_engine(r) or {}).get("ready"))
    async with look() as visitor:
        # A refresh would bring other numbers than those that were read.
        await visitor.page.route(re.compile("/reports/live"), lambda route: route.abort())
        with _busy(running):
            while True:  # it breathes: look until it is seen at work
                async with visitor.page.expect_response(re.compile("reports/providers")) as waited:
                    await visitor.see("providers")
                told = _engine(await (await waited.value).json())
                if told["running"] and told["kv_used"]:
                    break
            card = visitor.page.get_by_role("article").filter(has_text="KV cache")
            shown = await card.inner_text()

        await expect(card.get_by_role("heading", name="tiny")).to_be_visible()
        assert "ready" in shown
        assert f"{told['running']} of {told['max_batch']}" in shown
        assert re.search(r"KV cache\s+(<\s?)?[\d.]+%", shown), shown
        assert re.search(r"Waiting\s+\d", shown), shown
        assert re.search(r"Tokens made\s+[1-9]", shown), shown
        assert re.search(r"Busy\s+[\d.]+", shown), shown


# Money set aside


async def test_what_is_set_aside_is_drawn_in_the_burn_down_while_it_is(look, running, upstream):
    # Only who has spent something is listed.
    await asyncio.to_thread(_post, running, asking("Before that, this.", model="large"))
    body = asking(HELD, model="large", max_tokens=100_000)
    under_way = asyncio.create_task(asyncio.to_thread(_post, running, body))
    found = await asyncio.to_thread(
        _until, running, "budgets",
        lambda r: any(each["reserved_nano_usd"] for each in r["budgets"]),
    )  # fmt: skip
    (held,) = [each for each in found["budgets"] if each["reserved_nano_usd"]]
    usd = f"${held['reserved_nano_usd'] / 1e9:,.2f}"
    async with look() as visitor:
        page = await visitor.see("spend")
        card = page.get_by_role("article").filter(has_text="Set aside now")
        await expect(card).to_contain_text(usd)
        await expect(
            card.get_by_role("img", name=re.compile(f"Set aside: \\{usd}"))
        ).to_be_visible()
        drawn = card.locator(".burn .reserved")
        await expect(drawn).to_have_count(1)
        part = await drawn.bounding_box()
        whole = await card.locator(".burn").bounding_box()
        upstream.loop.call_soon_threadsafe(upstream.hold.release)
        answer = await under_way

    assert answer.status_code == 200
    assert held["reserved_nano_usd"] > 2_000_000_000  # of ten dollars
    assert part["height"] > 0.1 * whole["height"]


# Texts that were kept


async def test_kept_texts_are_shown_without_their_secrets(look, running):
    answer = await asyncio.to_thread(_post, running, asking(PROMPT, model="audited"))
    request_id = answer.headers["x-request-id"]
    await asyncio.to_thread(_until, running, f"requests/{request_id}", lambda r: r.get("texts"))
    async with look() as visitor:
        page = await visitor.see(f"requests?open={request_id}")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_text("Texts, with secrets taken out").click()
        await expect(dialog.locator(".said").first).to_be_visible()
        shown = await dialog.inner_text()

    assert "Write to [email taken out] that the key is [key taken out], please." in shown
    assert "Done for [email taken out]." in shown
    assert [secret for secret in SECRETS if secret in shown] == []


# A hit


async def test_hostile_prompts_that_were_kept_are_shown_as_they_are_and_do_nothing(look, running):
    prompt = "\n".join(HOSTILE)
    answer = await asyncio.to_thread(_post, running, asking(prompt, model="audited"))
    request_id = answer.headers["x-request-id"]
    await asyncio.to_thread(_until, running, f"requests/{request_id}", lambda r: r.get("texts"))
    async with look() as visitor:
        page = await visitor.see(f"requests?open={request_id}")
        dialog = page.get_by_role("dialog")
        await dialog.get_by_text("Texts, with secrets taken out").click()
        said = dialog.locator(".said pre").first
        await expect(said).to_be_visible()

        assert await said.evaluate("e => e.textContent") == prompt
        assert await dialog.locator("img, script, a").count() == 0
        assert await page.title() == "Requests · frugal-gateway"


async def test_an_exact_hit_is_a_bar_from_its_arrival_to_its_end(look, running):
    body = asking("Say it once more.", model="audited")
    await asyncio.to_thread(_post, running, body)
    again = await asyncio.to_thread(_post, running, body)
    request_id = again.headers["x-request-id"]
    await asyncio.to_thread(_until, running, f"requests/{request_id}", lambda r: "request" in r)
    async with look() as visitor:
        page = await visitor.see(f"requests?open={request_id}")
        steps = page.get_by_role("list", name="Steps, in order").get_by_role("listitem")
        await expect(steps).to_have_count(1)
        await expect(steps).to_contain_text("exact hit")
        bar = await steps.locator(".step-bar").bounding_box()
        track = await steps.locator(".step-track").bounding_box()

    assert again.headers["x-cache"] == "exact"
    assert bar["x"] == pytest.approx(track["x"], abs=1)
    assert bar["width"] == pytest.approx(track["width"], rel=0.02)


# A semantic cache that is wrong


def _false_hits(report):
    (found,) = (route for route in report["routes"] if route["route"] == "near")
    return found["false_hits"]


async def test_a_semantic_cache_that_spent_its_error_budget_is_shown_with_its_interval(
    look, running
):
    def ask_until_it_stops():
        for thing in THINGS:
            answers = [
                _post(running, asking(words, model="near")) for words in in_other_words(thing)
            ]
            if answers[-1].headers["x-cache"] == "semantic":
                served.append(thing)
            found = _until(
                running, "quality",
                lambda r: any(h["stops"] for h in _false_hits(r))
                or sum(h["audited"] for h in _false_hits(r)) >= len(served),
            )  # fmt: skip
            if any(h["stops"] for h in _false_hits(found)):
                return

    served = []
    await asyncio.to_thread(ask_until_it_stops)
    async with look() as visitor:
        page = await visitor.see("quality")
        route = page.get_by_role("region", name="near", exact=True)
        card = route.get_by_role("article").filter(has_text="platform")

        await expect(card.locator(".badge.bad")).to_have_text("exact only")
        await expect(card).to_contain_text("Stops1")
        await expect(card).to_contain_text("50.0%")
    assert len(served) >= 5


# A floor that no longer holds


async def test_drafts_that_got_worse_show_as_a_broken_floor_and_an_alarm(look, running, hook):
    book = Book(running.served.books.url)
    hour_ago = int((time.time() - 3600) * 1e6)
    book.add(list(rows_of(traffic(400, start=hour_ago, served=True))))
    await asyncio.to_thread(_until, running, "quality", lambda r: _state(r) == "certified")
    async with look() as visitor:
        page = await visitor.see("quality")
        route = page.get_by_role("region", name="auto", exact=True)
        await expect(route.get_by_text("certified", exact=True).first).to_be_visible()
        await expect(route.get_by_role("note")).to_have_count(0)

        book.add(list(rows_of(traffic(190, seed=5, start=int(time.time() * 1e6), fall=0.6,
                                      served=True))))  # fmt: skip
        book.close()
        await asyncio.to_thread(_until, running, "quality", lambda r: _state(r) == "lost")
        await visitor.see("quality?range=7d")

        await expect(route.get_by_role("note").filter(has_text="lost").first).to_be_visible()
        await expect(route.get_by_text("above the floor")).to_be_visible()
        await expect(
            route.get_by_text("asks its reference until it is proven again")
        ).to_be_visible()
    alarm = await _told(hook, "learning_lost")

    assert alarm["route"] == "auto"


def _state(report):
    return next(r["certificate"]["state"] for r in report["routes"] if r["route"] == "auto")
