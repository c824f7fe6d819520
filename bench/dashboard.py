"""What the dashboard's pages take on a large ledger: time to the first paint, and bytes.

    python -m bench.dashboard --entries 1000000

Fills a ledger as `bench.reports` does, serves it, and opens each page in Chromium: once with
nothing kept (first view), then again. The first paint is what the browser says of its first
contentful one; `shown` is when the page's numbers stand. Bytes are those of the network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from bench.processes import free_port, gateway
from bench.reports import fill

_VIEWS = ("overview", "spend", "quality", "requests", "policy", "providers")
_KEY = "sk-bench-admin-0123456789"
_CASCADE = "{tiers: [tiny, large], confidence: {kind: logprob, threshold: 0.8}}"
_POLICY = f"""\
version: 1
access: {{keys: [{{name: boss, key: {_KEY}, scopes: [admin]}}]}}
models:
  tiny: {{provider: openai, base_url: "http://127.0.0.1:9/v1", price: unknown_is_free}}
  large: {{provider: openai, base_url: "http://127.0.0.1:9/v1", price: unknown_is_free}}
routes:
  route-0: {{cascade: {_CASCADE}}}
  route-1: {{cascade: {_CASCADE}}}
limits: {{budget: {{usd: 1000, per: month, at_limit: warn}}}}
storage: {{ledger: "LEDGER"}}
"""
_PAINTED = """() => new Promise(resolve => {
  const told = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  const look = () => told() === undefined ? setTimeout(look, 5) : resolve(told());
  look();
})"""
_SHOWN = "() => document.querySelector('main .view h2') ? performance.now() : 0"


def measure(browser: Browser, url: str, view: str, *, days: str) -> dict[str, float]:
    """Open a page in a profile of its own and return milliseconds and bytes."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    login = context.request.post(f"{url}/admin/session", data={"key": _KEY})
    if not login.ok:
        raise SystemExit(f"the log-in answered {login.status}: {login.text()}")
    page = context.new_page()
    received = _count_bytes(context.new_cdp_session(page))
    page.goto(f"{url}/dashboard/{view}?range={days}")
    shown = page.wait_for_function(_SHOWN, polling=5, timeout=60_000).json_value()
    painted = page.evaluate(_PAINTED)
    context.close()
    return {"paint": painted, "shown": shown, "bytes": float(sum(received))}


def _count_bytes(network: Any) -> list[float]:
    received: list[float] = []
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda told: received.append(told["encodedDataLength"]))
    return received


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--range", default="30d", choices=("24h", "7d", "30d", "90d"))
    parser.add_argument("--directory", type=Path, help="where the ledger is kept, or found")
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = (asked.directory or folder).absolute() / "ledger.db"
        if not ledger.exists():
            fill(ledger, asked.entries, console)
        (folder / "policy.yaml").write_text(_POLICY.replace("LEDGER", f"sqlite:///{ledger}"))
        os.chdir(folder)
        port = free_port()
        with gateway(folder / "policy.yaml", port):
            rows = _all(f"http://127.0.0.1:{port + 1}", asked.rounds, asked.range)
    table = Table(
        "page", "first paint, ms", "worst", "shown, ms", "worst", "KB",
        title=f"{asked.entries:,} entries, the last {asked.range}, {asked.rounds} rounds",
    )  # fmt: skip
    for view, found in rows.items():
        table.add_row(view, *_cells(found))
    console.print(table)


def _all(url: str, rounds: int, days: str) -> dict[str, list[dict[str, float]]]:
    """Measure every page so many times; the first round, which warms both sides up, counts."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            return {
                view: [measure(browser, url, view, days=days) for _ in range(rounds)]
                for view in _VIEWS
            }
        finally:
            browser.close()


def _cells(found: list[dict[str, float]]) -> list[str]:
    cells = []
    for name in ("paint", "shown"):
        values = [each[name] for each in found]
        cells += [f"{statistics.median(values):.0f}", f"{max(values):.0f}"]
    return [*cells, f"{max(each['bytes'] for each in found) / 1000:.0f}"]


if __name__ == "__main__":
    main()
