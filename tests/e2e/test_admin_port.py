"""The admin port of a running `frugal serve`: a policy applied there, and pages that listen."""

from __future__ import annotations

import json
import time

import httpx

from tests.support.gateway_app import frugal_serve
from tests.support.policies import policy, remote

ADMIN = "sk-admin-0123456789abcdef"
USER = "sk-user-0123456789abcdef"
MODELS = {"large": remote("http://127.0.0.1:1/v1", price={"machine_hour_usd": 0})}
TEXT = policy(
    MODELS,
    {"auto": {"model": "large"}},
    access={
        "keys": [
            {"name": "boss", "key": ADMIN, "scopes": ["admin"]},
            {"name": "ci", "key": USER},
        ]
    },
    server={"drain": "300s"},
)
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}
AS_USER = {"authorization": f"Bearer {USER}"}


def test_every_worker_follows_a_policy_applied_over_http_and_listeners_hold_nobody_up(tmp_path):
    with (
        frugal_serve(TEXT, tmp_path, "--workers", "2") as served,
        httpx.Client(base_url=served.admin_url, headers=AS_ADMIN, trust_env=False) as admin,
    ):
        text = admin.get("/admin/policy/text").json()["text"]
        edited = text.replace('"auto": {', '"best": {')
        applied = admin.post("/admin/policy/apply", json={"text": edited}, timeout=60)
        assert applied.status_code == 200, applied.text
        _until_all_know(served.url, "best")
        with admin.stream("GET", "/admin/reports/live", timeout=60) as live:
            lines = live.iter_lines()
            heard = next(line for line in lines if line.startswith("data: "))
            # It would take five minutes to give up on those who listen.
            status = served.stop()

    assert json.loads(heard[6:])["requests"] == 0
    assert status == 0


def _until_all_know(url, route):
    """Ask on new connections until so many answers in a row name the route."""
    deadline, in_a_row = time.monotonic() + 60, 0
    while in_a_row < 12:
        assert time.monotonic() < deadline, "a worker does not follow"
        names = httpx.get(f"{url}/v1/models", headers=AS_USER, trust_env=False).json()["data"]
        known = route in [each["id"] for each in names]
        in_a_row = in_a_row + 1 if known else 0
        time.sleep(0.02)
