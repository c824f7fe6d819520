"""The admin port: who is let in, and what is shown."""

from __future__ import annotations

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import policy, remote

ADMIN = "sk-admin-0123456789abcdef"
USER = "sk-user-0123456789abcdef"
KEYS = [
    {"name": "boss", "key": ADMIN, "scopes": ["admin"]},
    {"name": "ci", "key": USER},
]
SECRET = "sk-planted-0123456789"


def _text(anonymous="never"):
    models = {"large": remote("http://127.0.0.1:1/v1", api_key="${PLANTED}")}
    return policy(models, access={"anonymous": anonymous, "keys": KEYS})


@pytest.fixture
async def gateway(tmp_path):
    async with serving(_text(), tmp_path, env={"PLANTED": SECRET}) as running:
        yield running


def _as(key):
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", ["/admin/policy", "/admin/reports/requests"])
async def test_only_an_admin_is_let_in(gateway, path):
    nobody = await gateway.admin.get(path)
    user = await gateway.admin.get(path, headers=_as(USER))
    admin = await gateway.admin.get(path, headers=_as(ADMIN))

    assert [r.status_code for r in (nobody, user, admin)] == [401, 403, 200]
    assert nobody.json()["error"]["code"] == "invalid_api_key"
    assert user.json()["error"]["code"] == "not_allowed"


async def test_loopback_is_let_in_where_the_policy_opens_it(tmp_path):
    async with serving(_text("loopback"), tmp_path, env={"PLANTED": SECRET}) as gateway:
        answer = await gateway.admin.get("/admin/policy")

    assert answer.status_code == 200


async def test_a_name_that_was_rebound_is_turned_away(gateway):
    headers = _as(ADMIN) | {"host": "evil.example"}
    answer = await gateway.admin.get("/admin/policy", headers=headers)

    assert answer.status_code == 400
    assert "allowed_hosts" in answer.json()["error"]["message"]


async def test_the_policy_is_shown_without_its_secrets(gateway):
    answer = await gateway.admin.get("/admin/policy", headers=_as(ADMIN))

    assert answer.json()["models"]["large"]["base_url"] == "http://127.0.0.1:1/v1"
    assert not any(secret in answer.text for secret in (SECRET, ADMIN, USER))


async def test_requests_are_reported_newest_first_and_no_more_than_asked(gateway):
    for prompt in ("a", "b", "c"):
        await gateway.chat(prompt, model="large", headers=_as(USER))
    answer = await gateway.admin.get("/admin/reports/requests?limit=2", headers=_as(ADMIN))

    rows = answer.json()["data"]
    known = gateway.books.entries()[::-1][:2]
    assert [{name: row[name] for name in known[0]} for row in rows] == known
    assert set(rows[0]) >= {
        "request_id", "state", "usage", "cost_nano_usd", "saved_nano_usd", "estimated",
        "lower_nano_usd", "upper_nano_usd", "cache", "path", "tenant", "key", "route", "model",
    }  # fmt: skip


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=99999", "since=yesterday"])
async def test_a_question_that_makes_no_sense_is_a_400(gateway, query):
    answer = await gateway.admin.get(f"/admin/reports/requests?{query}", headers=_as(ADMIN))

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_what_is_not_there_is_a_404_in_an_envelope(gateway):
    answer = await gateway.admin.get("/admin/nothing", headers=_as(ADMIN))

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_health_needs_no_key(gateway):
    assert (await gateway.admin.get("/health/ready")).status_code == 200


async def test_sums_are_reported_with_what_was_saved_three_ways(gateway):
    answer = await gateway.admin.get("/admin/reports?by=tag&since=7d", headers=_as(ADMIN))
    wrong = await gateway.admin.get("/admin/reports?since=soon", headers=_as(ADMIN))
    told = answer.json()

    assert {"saved_nano_usd", "cache_saved_nano_usd"} <= told["total"].keys()
    assert told["by"] == "tag"
    assert told["measured"] == told["groups"] == []
    assert wrong.status_code == 400
