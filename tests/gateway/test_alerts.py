"""A webhook is told once, signed, again where it fails, and never at a request's cost."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from cache.semantic.decision_budget import ErrorBudget
from gateway.access.meters import Purse
from gateway.alerts import ATTEMPTS, MOST_WAITING, Alerting, signature
from policies.alerts import Alerts, Event
from tests.policies.support import SMALL, load, told
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream, answer

URL = "https://hooks.example/T0/planted-secret"
PURSE = Purse("key:a:day:1", "key:a:day", ("key", "a"), "the budget of key 'a'", 1000, "warn",
              False, 0.0, 86_400.0)  # fmt: skip


class Hook:
    """A webhook that answers as it is told, then 204."""

    def __init__(self, *statuses) -> None:
        self.statuses = list(statuses)
        self.posts: list[tuple[dict, dict]] = []
        self.waits: list[float] = []

    async def post(self, body, headers):
        self.posts.append((json.loads(body), headers))
        status = self.statuses.pop(0) if self.statuses else 204
        if isinstance(status, Exception):
            raise status
        return status

    async def sleep(self, seconds):
        self.waits.append(seconds)

    def alerting(self, **rules):
        checked = Alerts.model_validate({"url": URL, **rules})
        return Alerting(checked, self.post, wall=lambda: 100.0, sleep=self.sleep)


async def _told(hook, tell, **rules):
    alerting = hook.alerting(**rules)
    tell(alerting)
    await alerting.aclose()
    return [body for body, _ in hook.posts]


async def test_an_error_budget_that_is_spent_is_told_and_when_it_serves_again():
    def tell(alerting):
        alerting.error_budget("auto", "acme", ErrorBudget(False, stops=1))
        alerting.error_budget("auto", "acme", ErrorBudget(True, stops=1))

    posts = await _told(Hook(), tell)

    assert [post["event"] for post in posts] == ["error_budget_spent", "error_budget_restored"]
    assert {(post["route"], post["tenant"], post["stops"]) for post in posts} == {
        ("auto", "acme", 1)
    }
    assert posts[0]["id"] != posts[1]["id"]
    assert await _told(Hook(), tell, events=["budget"]) == []


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        (["drift"], ["learning_drift", "learning_reset"]),
        (["learning"], ["learning_lost", "learning_drift", "learning_reset"]),
        (["drift", "learning"], ["learning_lost", "learning_drift", "learning_reset"]),
        (["budget"], []),
    ],
)
async def test_drift_may_be_told_without_all_other_news_of_learning(events, kinds):
    def tell(alerting):
        for number, kind in enumerate(("lost", "drift", "reset")):
            alerting.learning("auto", kind, number, "because")

    posts = await _told(Hook(), tell, events=events)

    assert [post["event"] for post in posts] == kinds


async def test_what_was_sent_dropped_and_given_up_is_counted():
    alerting = Hook(400).alerting()
    alerting.used_up(PURSE)
    alerting.breaker("m", "open")
    await alerting.aclose()

    assert (alerting.sent, alerting.failed, alerting.dropped) == (1, 1, 0)


async def test_each_threshold_is_told_once_a_window():
    def spend(alerting):
        for nano in (100, 700, 800, 900, 1000, 1100):
            alerting.spent(PURSE, nano)

    posts = await _told(Hook(), spend, thresholds=[1.0, 0.5])

    assert [(post["event"], post["share"]) for post in posts] == [
        ("budget_threshold", 0.5), ("budget_threshold", 1.0),
    ]  # fmt: skip
    assert posts[0]["scope"] == {"kind": "key", "name": "a"}
    assert posts[0]["limit_nano_usd"] == 1000


async def test_events_that_were_not_asked_for_are_not_told():
    def tell(alerting):
        alerting.used_up(PURSE)
        alerting.breaker("m", "open")

    assert [p["event"] for p in await _told(Hook(), tell, events=["breaker"])] == ["breaker_open"]
    assert [p["event"] for p in await _told(Hook(), tell, events=["budget"])] == ["budget_used_up"]


async def test_a_post_is_signed_over_its_time_and_body():
    hook = Hook()
    await _told(hook, lambda alerting: alerting.used_up(PURSE), secret="s3cret")
    body, headers = hook.posts[0]

    assert headers["x-frugal-timestamp"] == "100"
    raw = json.dumps(body, separators=(",", ":")).encode()
    assert headers["x-frugal-signature"] == f"sha256={signature('s3cret', '100', raw)}"
    assert "s3cret" not in json.dumps(body)


async def test_what_fails_is_posted_again_with_longer_waits():
    hook = Hook(500, OSError(), 429)
    posts = await _told(hook, lambda alerting: alerting.used_up(PURSE))

    assert len(posts) == 4
    assert len({post["id"] for post in posts}) == 1
    assert len(hook.waits) == 3
    assert 0.5 <= hook.waits[0] <= 1.0 <= hook.waits[1] <= 2.0 <= hook.waits[2] <= 4.0


@pytest.mark.parametrize(("status", "posts"), [(500, ATTEMPTS), (404, 1), (302, ATTEMPTS)])
async def test_what_is_never_taken_is_given_up_without_a_word_of_the_url(status, posts, caplog):
    hook = Hook(*[status] * 20)
    await _told(hook, lambda alerting: alerting.used_up(PURSE))

    assert len(hook.posts) == posts
    assert "was not delivered" in caplog.text
    assert "planted-secret" not in caplog.text


async def test_what_cannot_wait_is_dropped_and_counted():
    alerting = Hook().alerting()
    for number in range(MOST_WAITING + 5):
        alerting.breaker(f"m{number}", "open")

    assert alerting.dropped == 5
    await alerting.aclose()


def test_a_webhook_is_a_secret_and_a_url():
    assert load(SMALL + f"alerts: {{url: '{URL}'}}").alerts.url.get_secret_value() == URL
    for wrong in ("ftp://a/b", "hooks.example", "http://user:pw@a/", "http://a b/"):
        (line,) = told(SMALL + f"alerts: {{url: '{wrong}'}}")
        assert "expected an http:// or https:// URL" in line
        assert wrong not in line


async def test_over_the_wire_a_budget_and_a_breaker_are_told(tmp_path):
    ill = answer({}, status="500 Ill")
    async with (
        ScriptedUpstream([[answer(b"", status="204 No Content")]]) as hook,
        ScriptedUpstream(Says("yes", tokens=(10, 1000))) as upstream,
        ScriptedUpstream([[ill]]) as sick,
    ):
        cent = {"input_per_mtok_usd": 0, "output_per_mtok_usd": 10}
        models = {"m": remote(upstream.url, price=cent), "sick": remote(sick.url)}
        routes = {"ill": {"model": "sick", "breaker": {"consecutive": 2}}}
        text = policy(
            models,
            routes,
            limits={"budget": {"usd": "0.01", "per": "day", "at_limit": "warn"}},
            alerts={"url": hook.url, "secret": "planted-secret"},
        )
        async with serving(text, tmp_path) as gateway:
            for number in range(3):
                await gateway.chat(str(number), model="m", max_tokens=1000)
                await gateway.chat(str(number), model="ill")
            await hook.until(lambda: len(hook.requests) >= 4)

    events = sorted(request.json["event"] for request in hook.requests)
    assert events == ["breaker_open", "budget_threshold", "budget_threshold", "budget_used_up"]
    assert all("x-frugal-signature" in request.headers for request in hook.requests)
    assert not any(b"planted-secret" in request.body for request in hook.requests)


def test_the_page_shows_what_is_posted():
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    shown = [json.loads(block) for block in re.findall(r"```json\n(.+?)```", page, re.DOTALL)]
    hook = Hook()

    async def post_all():
        alerting = hook.alerting(thresholds=[0.8])
        alerting.spent(PURSE, 812)
        alerting.used_up(PURSE)
        alerting.error_budget("auto", "acme", ErrorBudget(False, stops=1))
        alerting.breaker("large", "open")
        alerting.learning("auto", "drift", 7, "prompt tokens have moved")
        await alerting.aclose()

    asyncio.run(post_all())

    posted = [body for body, _ in hook.posts]
    assert [list(each) for each in shown] == [list(each) for each in posted]
    assert [each["event"] for each in shown] == [each["event"] for each in posted]
    assert {each["message"] for each in shown[2:]} == {each["message"] for each in posted[2:]}


def test_the_page_names_every_event():
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()

    assert all(f"| `{event}` |" in page for event in get_args(Event))
