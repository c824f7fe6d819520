"""Keys over the admin port: made by an admin, shown once, ended at once."""

from __future__ import annotations

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import policy, remote

ADMIN = {"authorization": "Bearer sk-admin-0123456789abcdef"}
USER = {"authorization": "Bearer sk-user-0123456789abcdef"}
KEYS = [
    {"name": "boss", "key": "sk-admin-0123456789abcdef", "scopes": ["admin"]},
    {"name": "ci", "key": "sk-user-0123456789abcdef"},
]


@pytest.fixture
async def admin(tmp_path):
    text = policy(
        {"m": remote("http://127.0.0.1:1/v1")}, access={"keys": KEYS, "anonymous": "loopback"}
    )
    async with serving(text, tmp_path) as running:
        yield running.admin


async def test_a_key_is_made_listed_rotated_and_revoked(admin):
    new = {"name": "team/shop", "tenant": "web", "limits": {"requests_per_minute": 5}}
    made = (await admin.post("/admin/keys", json=new, headers=ADMIN)).json()["key"]
    path = "/admin/keys/team/shop"
    rotated = (await admin.post(f"{path}/rotate", json={"grace": "1h"}, headers=ADMIN)).json()[
        "key"
    ]
    listed = await admin.get("/admin/keys", headers=ADMIN)
    revoked = await admin.post(f"{path}/revoke", headers=ADMIN)
    after = (await admin.get("/admin/keys", headers=ADMIN)).json()["data"]

    assert made != rotated
    assert made not in listed.text
    assert rotated not in listed.text
    assert [(row["name"], row["state"]) for row in listed.json()["data"]] == [
        ("team/shop", "active"),
        ("team/shop", "active"),
    ]
    assert revoked.status_code == 200
    assert {row["state"] for row in after} == {"revoked"}


@pytest.mark.parametrize(("who", "status"), [(None, 403), (USER, 403), (ADMIN, 200)])
async def test_only_a_named_admin_may_see_or_make_keys(admin, who, status):
    listed = await admin.get("/admin/keys", headers=who)
    made = await admin.post("/admin/keys", json={"name": "x"}, headers=who)

    assert (listed.status_code, made.status_code) == (status, status)


@pytest.mark.parametrize(
    "new",
    [
        {"name": "x", "is_admin": True},
        {"name": "x y"},
        {"name": "x", "limits": {"requests_per_minute": 0}},
        {"name": "x", "scopes": ["/*"]},
        {},
        [],
    ],
)
async def test_nothing_but_what_a_key_may_have_is_taken(admin, new):
    answer = await admin.post("/admin/keys", json=new, headers=ADMIN)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_unknown_name_is_told(admin):
    answer = await admin.post("/admin/keys/nobody/revoke", headers=ADMIN)

    assert answer.status_code == 400
    assert "error" in answer.json()
