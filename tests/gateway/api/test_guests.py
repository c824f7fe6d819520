"""Logging in to the admin port: cookies, the token beside them, and who may do what."""

from __future__ import annotations

import pytest

from gateway.access.sessions import LASTS_S, MOST, PER_S, TRIES, Sessions, Tries
from gateway.clock import Clock
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote

ADMIN = "sk-admin-0123456789abcdef"
READER = "sk-reader-0123456789abcdef"
USER = "sk-user-0123456789abcdef"
KEYS = [
    {"name": "boss", "key": ADMIN, "scopes": ["admin"]},
    {"name": "finance", "key": READER, "scopes": ["read"]},
    {"name": "ci", "key": USER},
]


def _text(anonymous="never", keys=KEYS):
    models = {"large": remote("http://127.0.0.1:1/v1", price={"machine_hour_usd": 0})}
    return policy(models, access={"anonymous": anonymous, "keys": keys})


class _Wall:
    def __init__(self):
        self.now = 1_795_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def wall():
    return _Wall()


@pytest.fixture
async def gateway(tmp_path, wall):
    async with serving(_text(), tmp_path, clock=Clock(wall=wall)) as running:
        yield running


async def _logged_in(gateway, key=ADMIN, **headers):
    return await gateway.admin.post("/admin/session", json={"key": key}, headers=headers)


async def test_a_reader_sees_reports_and_changes_nothing(gateway):
    headers = {"authorization": f"Bearer {READER}"}
    seen = await gateway.admin.get("/admin/reports/overview", headers=headers)
    shown = await gateway.admin.get("/admin/policy", headers=headers)
    changed = await gateway.admin.post(
        "/admin/cache/invalidate", json={"everything": True}, headers=headers
    )
    keys = await gateway.admin.get("/admin/keys", headers=headers)

    assert [r.status_code for r in (seen, shown, changed, keys)] == [200, 200, 403, 403]


async def test_a_cookie_is_given_that_scripts_and_other_sites_cannot_use(gateway):
    answer = await _logged_in(gateway)
    behind_tls = await _logged_in(gateway, **{"x-forwarded-proto": "https"})
    cookie = answer.headers["set-cookie"].lower()

    assert answer.status_code == 200
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert ADMIN not in cookie
    assert "secure" not in cookie
    assert "secure" in behind_tls.headers["set-cookie"].lower()


async def test_a_cookie_stands_for_its_key(gateway):
    told = (await _logged_in(gateway, READER)).json()
    me = (await gateway.admin.get("/admin/session")).json()
    seen = await gateway.admin.get("/admin/reports/spend")

    assert (me["key"], me["can_change"], me["scopes"]) == ("finance", False, ["read"])
    assert me["csrf"] == told["csrf"]
    assert seen.status_code == 200


async def test_a_change_by_cookie_needs_the_token_beside_it(gateway):
    csrf = (await _logged_in(gateway)).json()["csrf"]
    body = {"everything": True, "dry_run": True}
    without = await gateway.admin.post("/admin/cache/invalidate", json=body)
    wrong = await gateway.admin.post(
        "/admin/cache/invalidate", json=body, headers={"x-csrf-token": "no"}
    )
    right = await gateway.admin.post(
        "/admin/cache/invalidate", json=body, headers={"x-csrf-token": csrf}
    )

    assert [r.status_code for r in (without, wrong, right)] == [403, 403, 200]
    assert without.json()["error"]["code"] == "csrf_token_missing"


async def test_who_logs_out_is_out(gateway):
    csrf = (await _logged_in(gateway)).json()["csrf"]
    token = gateway.admin.cookies["frugal_session"]
    await gateway.admin.delete("/admin/session", headers={"x-csrf-token": csrf})
    gateway.admin.cookies.clear()
    again = await gateway.admin.get("/admin/policy", headers={"cookie": f"frugal_session={token}"})

    assert again.status_code == 401


async def test_a_session_ends_by_itself(gateway, wall):
    await _logged_in(gateway)
    wall.now += LASTS_S

    assert (await gateway.admin.get("/admin/session")).status_code == 401


async def test_wrong_keys_are_limited_and_a_right_one_waits_as_well(gateway, wall):
    wrong = [(await _logged_in(gateway, "sk-wrong")).status_code for _ in range(TRIES)]
    late = await _logged_in(gateway)
    wall.now += PER_S
    later = await _logged_in(gateway)

    assert wrong == [401] * TRIES
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= PER_S + 1
    assert later.status_code == 200


async def test_a_key_without_a_scope_for_it_cannot_log_in(gateway):
    assert (await _logged_in(gateway, USER)).status_code == 403


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}]
)
async def test_another_sites_page_changes_nothing_on_an_open_port(tmp_path, headers):
    async with serving(_text("loopback"), tmp_path) as gateway:
        seen = await gateway.admin.get("/admin/session", headers=headers)
        changed = await gateway.admin.post(
            "/admin/cache/invalidate", json={"everything": True}, headers=headers
        )

    assert (seen.status_code, changed.status_code) == (200, 403)
    assert seen.json()["is_anonymous"]
    assert not seen.json()["can_manage"]


def test_sessions_are_bounded():
    sessions = Sessions(lambda: 0.0)
    first, _ = sessions.begin(b"one")
    for _ in range(MOST):
        last, _ = sessions.begin(b"other")

    assert sessions.find(first) is None
    assert sessions.find(last) is not None


def test_clients_that_were_wrong_are_bounded():
    tries = Tries(lambda: 0.0)
    for number in range(1_500):
        tries.failed(str(number))

    assert len(tries._wrong) == 1_000
