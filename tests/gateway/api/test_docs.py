"""`/docs`: every endpoint and shape, without anything from elsewhere."""

from __future__ import annotations

import re

from gateway.api.docs import page
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote

MODELS = {"large": remote("http://127.0.0.1:1/v1", price={"machine_hour_usd": 0})}


async def test_every_endpoint_is_told_and_nothing_comes_from_elsewhere(tmp_path):
    async with serving(policy(MODELS), tmp_path) as gateway:
        told = (await gateway.admin.get("/openapi.json")).json()
        answer = await gateway.admin.get("/docs")
    html = answer.text

    assert [path for path in told["paths"] if path not in html] == []
    assert [name for name in told["components"]["schemas"] if f"shape-{name}" not in html] == []
    assert {"/admin/reports/overview", "/admin/policy/plan", "/admin/session"} <= set(told["paths"])
    assert re.findall(r"https?://", html) == []
    assert "<script" not in html
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def _kinds(method):
    return method["responses"]["200"].get("content", {}).values()


async def test_every_report_says_what_it_returns(tmp_path):
    async with serving(policy(MODELS), tmp_path) as gateway:
        told = (await gateway.admin.get("/openapi.json")).json()
    vague = [
        path
        for path, item in told["paths"].items()
        if path.startswith(("/admin/reports/", "/admin/session"))
        for method in item.values()
        if not method.get("description") or not any("$ref" in str(kind) for kind in _kinds(method))
    ]

    assert vague == ["/admin/reports/live"]


def test_what_is_told_is_inert():
    evil = '"><script>alert(1)</script>'
    told = {
        "info": {"title": evil},
        "paths": {f"/{evil}": {"get": {"description": evil, "responses": {}, "tags": [evil]}}},
        "components": {"schemas": {evil: {"properties": {evil: {"type": evil}}}}},
    }

    assert "<script" not in page(told)
