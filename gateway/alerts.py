"""Tell a webhook what somebody should know, behind the back of requests.

Telling never waits: what cannot be kept is dropped and counted. A post is
signed as `x-frugal-signature: sha256=HMAC(secret, timestamp + "." + body)`, with
`x-frugal-timestamp` beside it, so that an old one cannot be sent again. Several
workers may tell of the same thing: then `id` is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.access.meters import Purse
from gateway.upstream.choose import proxy_for
from gateway.upstream.tls import context_for
from gateway.upstream.types import Origin
from policies.alerts import Alerts

if TYPE_CHECKING:
    from cache.semantic.decision_budget import ErrorBudget

MOST_WAITING = 1000
ATTEMPTS = 6
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_POST_WITHIN_S = 5.0
_FLUSH_S = 2.0
_MOST_REMEMBERED = 10_000
_DRIFT = frozenset(("drift", "reset"))
"""Steps of learning that are taken because traffic or a model has changed."""
_log = logging.getLogger(__name__)

Post = Callable[[bytes, dict[str, str]], Awaitable[int]]
"""Posts a body with its headers and returns the status. Raises OSError."""


class Told(Protocol):
    """Who hears of budgets and breakers."""

    def spent(self, purse: Purse, nano_usd: int) -> None:
        """Hear what is spent of a budget."""
        ...

    def used_up(self, purse: Purse) -> None:
        """Hear that a budget gives no more."""
        ...

    def breaker(self, model: str, state: str) -> None:
        """Hear that a model's breaker has opened or closed."""
        ...


class Alerting:
    """Decides what is news, and posts it; an async task that `aclose` ends."""

    def __init__(
        self,
        rules: Alerts,
        post: Post,
        *,
        wall: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self.failed = 0
        self._rules = rules
        self._post = post
        self._wall = wall
        self._sleep = sleep
        self._thresholds = sorted(rules.thresholds)
        self._known: set[str] = set()
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MOST_WAITING)
        self._poster = asyncio.create_task(self._keep_posting())

    def spent(self, purse: Purse, nano_usd: int) -> None:
        """Tell, once a window, of each threshold that a budget has passed."""
        for share in self._thresholds:
            if nano_usd < share * purse.nano_usd:
                return
            details = {"share": share, "spent_nano_usd": nano_usd, **_about(purse)}
            message = f"{purse.whose}: {share:.0%} is spent"
            self._budget("budget_threshold", f"{purse.id}:{share}", message, details)

    def used_up(self, purse: Purse) -> None:
        """Tell, once a window, that a budget is at its limit."""
        message = f"{purse.whose}: is used up ({purse.at_limit})"
        self._budget("budget_used_up", purse.id, message, _about(purse))

    def breaker(self, model: str, state: str) -> None:
        """Tell that a model's breaker has opened or closed."""
        if "breaker" in self._rules.events:
            now = self._wall()
            message = f"model {model}: its breaker is {state}"
            self._tell(f"breaker_{state}", f"{model}:{state}:{int(now)}", message, {"model": model})

    def error_budget(self, route: str, tenant: str, budget: ErrorBudget) -> None:
        """Tell that the semantic cache of a route stopped to serve a tenant, or serves again."""
        if "error_budget" in self._rules.events:
            event = "error_budget_restored" if budget.is_serving else "error_budget_spent"
            state = "serves similar questions again"
            if not budget.is_serving:
                state = "answers equal questions only: its error budget is spent"
            message = f"route {route}, tenant {tenant}: the semantic cache {state}"
            details = {"route": route, "tenant": tenant, "stops": budget.stops}
            self._tell(event, f"{route}:{tenant}:{budget.stops}", message, details)

    def learning(self, route: str, kind: str, number: int, why: str) -> None:
        """Tell that what a route has learnt holds no more; `number` is that of the step taken."""
        events = self._rules.events
        if "learning" in events or ("drift" in events and kind in _DRIFT):
            message = f"route {route}: {kind}: {why}"
            self._tell(f"learning_{kind}", f"{route}:{number}", message, {"route": route})

    async def aclose(self) -> None:
        """Post what waits, within a moment, and no more."""
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._waiting.join()
        except TimeoutError:
            _log.error("%d alerts were not delivered", self._waiting.qsize() + 1)
        self._poster.cancel()
        await asyncio.gather(self._poster, return_exceptions=True)

    def _budget(self, event: str, subject: str, message: str, details: dict[str, Any]) -> None:
        key = f"{event}:{subject}"
        if "budget" not in self._rules.events or key in self._known:
            return
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known.add(key)
        self._tell(event, subject, message, details)

    def _tell(self, event: str, subject: str, message: str, details: dict[str, Any]) -> None:
        name = hashlib.blake2b(f"{event}:{subject}".encode(), digest_size=12).hexdigest()
        told = {"id": f"alert_{name}", "event": event, "at": self._wall(), "message": message}
        try:
            self._waiting.put_nowait({**told, **details})
        except asyncio.QueueFull:
            if not self.dropped:
                _log.error("alerts wait for their webhook; more are dropped")
            self.dropped += 1

    async def _keep_posting(self) -> None:
        while True:
            alert = await self._waiting.get()
            try:
                await self._deliver(alert)
            finally:
                self._waiting.task_done()

    async def _deliver(self, alert: dict[str, Any]) -> None:
        """Post until it is taken, waiting twice as long each time; give up in the end."""
        body = msgspec.json.encode(alert)
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**attempt)
                await self._sleep(wait_s * random.uniform(0.5, 1.0))
            try:
                status = await self._post(body, self._headers(alert, body))
            except OSError as exc:
                why = type(exc).__name__
                continue
            if 200 <= status < 300:
                self.sent += 1
                return
            why = f"status {status}"
            if 400 <= status < 500 and status not in (408, 425, 429):
                break
        self.failed += 1
        _log.error("the alert %r was not delivered: %s", alert["event"], why)

    def _headers(self, alert: dict[str, Any], body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-frugal-event": str(alert["event"])}
        if self._rules.secret is not None:
            at = str(int(self._wall()))
            headers["x-frugal-timestamp"] = at
            secret = self._rules.secret.get_secret_value()
            headers["x-frugal-signature"] = f"sha256={signature(secret, at, body)}"
        return headers


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what a receiver compares `x-frugal-signature` with, in hexadecimal."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


@asynccontextmanager
async def alerting_of(
    rules: Alerts | None, wall: Callable[[], float]
) -> AsyncIterator[Alerting | None]:
    """Yield who tells the policy's webhook; None where it names none."""
    if rules is None:
        yield None
        return
    async with webhook(rules.url.get_secret_value()) as post:
        alerting = Alerting(rules, post, wall=wall)
        try:
            yield alerting
        finally:
            await alerting.aclose()


@asynccontextmanager
async def webhook(url: str) -> AsyncIterator[Post]:
    """Yield what posts to one URL and nowhere else: redirects are not followed, nothing is read."""
    import httpx

    origin = Origin.of_url(url)
    client = httpx.AsyncClient(
        verify=context_for(None) if origin.is_tls else False,
        proxy=proxy_for(origin, os.environ),
        trust_env=False,
        timeout=_POST_WITHIN_S,
    )

    async def post(body: bytes, headers: dict[str, str]) -> int:
        try:
            async with client.stream("POST", url, content=body, headers=headers) as response:
                return response.status_code
        except httpx.HTTPError as exc:
            raise ConnectionError(type(exc).__name__) from exc

    async with client:
        yield post


def _about(purse: Purse) -> dict[str, Any]:
    kind, name = purse.scope
    return {
        "scope": {"kind": kind, "name": name},
        "limit_nano_usd": purse.nano_usd,
        "at_limit": purse.at_limit,
        "window": {"start": purse.start, "end": None if purse.end == float("inf") else purse.end},
    }
