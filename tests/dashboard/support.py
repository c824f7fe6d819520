"""What the dashboard's tests share: a gateway's addresses, and a browser that watches itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.support.gateway_app import Served, asking
from tests.support.replies import Says
from tests.support.scripted_upstream import Received, Script

ADMIN_KEY = "sk-admin-0123456789abcdef"
READ_KEY = "sk-read-0123456789abcdef"
USER_KEY = "sk-user-0123456789abcdef"
VIEWS = ("overview", "spend", "quality", "requests", "policy", "providers")
LONG_AGO = "from=2020-01-01T00:00Z&to=2020-01-02T00:00Z"

_KEYS = f"""\
access:
  keys:
    - {{name: boss, tenant: platform, key: {ADMIN_KEY}, scopes: [admin]}}
    - {{name: finance, tenant: platform, key: {READ_KEY}, scopes: [read]}}
    - {{name: web, tenant: platform, key: {USER_KEY}}}
"""

_REST = """
models:
  tiny:
    provider: openai
    base_url: URL
    model: tiny-1b
    logprobs: true
    price: {input_per_mtok_usd: 0.02, output_per_mtok_usd: 0.04}
  mini:
    provider: openai
    model: mini-8b
    logprobs: true
    deployments:
      - {base_url: URL, weight: 2}
      - {base_url: OTHER, weight: 1}
    price: {input_per_mtok_usd: 0.25, output_per_mtok_usd: 1.00}
  large:
    provider: openai
    base_url: URL
    model: large-400b
    price: {input_per_mtok_usd: 3.00, output_per_mtok_usd: 12.00}

routes:
  auto:                                   # clients send model="auto"
    cascade:
      tiers: [tiny, mini, large]
      reference: large                    # what savings are measured against
      confidence: {kind: logprob, threshold: 0.72}
    cache: {exact: {ttl: 24h}}
    breaker: {failures: 0.5, window: 30s, min_calls: 20, open_for: 15s}
  deep:
    model: large

limits:
  budget: {usd: 60, per: month, at_limit: warn}
"""


def policy_text(url: str) -> str:
    """Return the policy that the gateway of these tests serves."""
    rest = _REST.replace("URL", url).replace("OTHER", url.replace("127.0.0.1", "localhost"))
    return f"# What the platform team serves.\nversion: 1\n\n{_KEYS}{rest}"


def reply(received: Received) -> Script:
    """Answer as each model would: the small ones are not sure."""
    model = received.json["model"]
    doubt = {"tiny-1b": [-0.1, -1.2, -0.3], "mini-8b": [-0.05, -0.1, -0.02]}
    return Says("It is Paris.", tokens=(180, 40), logprobs=doubt.get(model), name=model)(received)


@dataclass(slots=True)
class Dashboard:
    """The gateway that is looked at; `reported` is how many violations it was told of."""

    served: Served
    reported: int = 0

    @property
    def url(self) -> str:
        """Return where the pages are."""
        return f"{self.served.admin_url}/dashboard/"

    def ask(self, prompt: str) -> str:
        """Send a request as a client would, and return its id."""
        headers = {"authorization": f"Bearer {USER_KEY}"}
        with self.served.client(headers=headers) as client:
            answer = client.post("/v1/chat/completions", json=asking(prompt))
        answer.raise_for_status()
        return answer.headers["x-request-id"]

    def violations(self) -> int:
        """Return how many violations of the content policy browsers have reported."""
        with self.admin() as client:
            return client.get("/admin/csp").json()["count"]

    def admin(self) -> httpx.Client:
        """Return a client of the admin port."""
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        return httpx.Client(
            base_url=self.served.admin_url, headers=headers, trust_env=False, timeout=30
        )


@dataclass(slots=True)
class Visitor:
    """Someone at a browser. `faults` are errors of scripts, which nobody expects."""

    page: Page
    dashboard: Dashboard
    faults: list[str] = field(default_factory=list)

    @classmethod
    async def arrive(
        cls, context: BrowserContext, dashboard: Dashboard, key: str | None
    ) -> Visitor:
        """Open a profile, logged in with `key` if there is one."""
        page = await context.new_page()
        page.set_default_timeout(30_000)
        visitor = cls(page, dashboard)
        page.on("pageerror", lambda error: visitor.faults.append(str(error)))
        if key is not None:
            answer = await context.request.post(
                f"{dashboard.served.admin_url}/admin/session", data={"key": key}
            )
            assert answer.ok, await answer.text()
        return visitor

    async def see(self, address: str) -> Page:
        """Open a page and wait until it shows something."""
        await self.page.goto(self.dashboard.url + address)
        await self.settle()
        return self.page

    async def settle(self) -> None:
        """Wait until the page has loaded what it shows."""
        await expect(self.page.locator("main .view > *").first).to_be_visible()
        await expect(self.page.locator("main[aria-busy]")).to_have_count(0)
        await expect(self.page.locator(".waiting")).to_have_count(0)

    async def text(self) -> str:
        """Return what the page says."""
        return await self.page.locator("main").inner_text()

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return await self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


@asynccontextmanager
async def visitor_of(
    chromium: Browser, dashboard: Dashboard, key: str | None = ADMIN_KEY, **options: Any
) -> AsyncIterator[Visitor]:
    """Open a dashboard with a key, in a profile of its own that nothing may go wrong in."""
    options = {"viewport": {"width": 1360, "height": 900}, **options}
    context = await chromium.new_context(**options)
    visitor = await Visitor.arrive(context, dashboard, key)
    try:
        yield visitor
        assert visitor.faults == []
        assert dashboard.violations() == dashboard.reported
    finally:
        await visitor.page.unroute_all(behavior="ignoreErrors")
        await context.close()


def serious(found: dict[str, object]) -> Iterator[str]:
    """Yield what axe holds to be serious or critical, in a line each."""
    for violation in found["violations"]:
        if violation["impact"] in ("serious", "critical"):
            for node in violation["nodes"]:
                yield f"{violation['id']}: {json.dumps(node['target'])} {node['failureSummary']}"
