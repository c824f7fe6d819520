"""The dashboard's files: how they are sent, and what a browser is told about them."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import policy, remote

ADMIN = {"authorization": "Bearer sk-admin-0123456789abcdef"}
KEYS = [{"name": "boss", "key": "sk-admin-0123456789abcdef", "scopes": ["admin"]}]
ASSET = re.compile(r'(?:href|src)="(assets/[0-9a-f]{16}/[a-z_]+\.(?:js|css|svg))"')


@pytest.fixture
async def admin(tmp_path):
    models = {"large": remote("http://127.0.0.1:1/v1")}
    text = policy(models, access={"anonymous": "never", "keys": KEYS})
    async with serving(text, tmp_path) as running:
        yield running.admin


async def test_the_address_without_a_slash_leads_to_the_pages_behind_any_prefix(admin):
    answer = await admin.get("/dashboard")

    assert answer.status_code == 307
    assert answer.headers["location"] == "dashboard/"


@pytest.mark.parametrize("view", ["", "overview", "spend", "quality", "requests", "policy"])
async def test_a_page_needs_no_key_and_forbids_what_is_not_its_own(admin, view):
    answer = await admin.get(f"/dashboard/{view}")

    told = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert answer.status_code == 200
    assert told["default-src"] == told["frame-ancestors"] == told["form-action"] == "'none'"
    assert told["script-src"] == told["style-src"] == told["connect-src"] == "'self'"
    assert told["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"


async def test_a_page_holds_no_script_or_style_of_its_own(admin):
    page = (await admin.get("/dashboard/")).text

    assert "://" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)


async def test_what_a_page_names_is_there_and_may_be_kept_for_good(admin):
    found = ASSET.findall((await admin.get("/dashboard/")).text)

    assert found
    for path in found:
        answer = await admin.get(f"/dashboard/{path}")
        assert answer.status_code == 200, path
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_files_are_packed_only_for_who_takes_them_so(admin):
    path = "/dashboard/" + ASSET.findall((await admin.get("/dashboard/")).text)[-1]

    packed = await admin.get(path, headers={"accept-encoding": "gzip"})
    plain = await admin.get(path, headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/nowhere",
        "/dashboard/assets/0000000000000000/main.js",
        "/dashboard/assets/0000000000000000/../../api/dashboard.py",
        "/dashboard/assets/..%2f..%2f..%2fapp.py",
        "/dashboard/assets/%2e%2e/%2e%2e/app.py",
    ],
)
async def test_nothing_else_is_sent(admin, path):
    answer = await admin.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_no_file_outside_is_sent_even_below_the_right_digest(admin):
    digest = ASSET.findall((await admin.get("/dashboard/")).text)[0].split("/")[1]

    for name in ("../index.html", "..%2findex.html", "%2fetc%2fpasswd", "index.html"):
        answer = await admin.get(f"/dashboard/assets/{digest}/{name}")
        assert answer.status_code == 404, name


async def test_a_name_that_was_rebound_gets_no_page(admin):
    for path in ("/dashboard", "/dashboard/", "/dashboard/spend", "/dashboard/assets/0/main.js"):
        answer = await admin.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 400, path


# What browsers report


def _report(**told):
    return {"csp-report": {"blocked-uri": "inline", "violated-directive": "script-src", **told}}


async def test_a_browser_reports_without_a_key_and_an_admin_reads_it(admin):
    sent = await admin.post("/admin/csp", json=_report(cookie="secret"))

    kept = (await admin.get("/admin/csp", headers=ADMIN)).json()
    assert sent.status_code == 204
    assert (await admin.get("/admin/csp")).status_code == 401
    assert kept == {
        "count": 1,
        "data": [{"violated-directive": "script-src", "blocked-uri": "inline"}],
    }


async def test_reports_take_no_more_room_than_they_may(admin):
    for number in range(70):
        await admin.post("/admin/csp", json=_report(**{"blocked-uri": f"{number}" + "x" * 9_000}))
    await admin.post("/admin/csp", content=b"x" * 20_000)
    await admin.post("/admin/csp", content=b"[1")
    await admin.post("/admin/csp", json=[1])

    kept = (await admin.get("/admin/csp", headers=ADMIN)).json()
    assert kept["count"] == 73
    assert len(kept["data"]) == 64
    assert max(len(told["blocked-uri"]) for told in kept["data"]) == 500
