"""Models and health, on the public port."""

from __future__ import annotations

import sqlite3

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import KEPT, policy, remote

KEYS = [
    {"name": "all", "key": "sk-all-0123456789abcdef"},
    {"name": "some", "key": "sk-some-0123456789abcdef", "scopes": ["auto"]},
]


@pytest.fixture
async def gateway(tmp_path):
    models = {name: remote("http://127.0.0.1:1/v1") for name in ("small", "org/large")}
    routes = {"auto": {"model": "small", "cache": KEPT}}
    text = policy(models, routes, access={"anonymous": "loopback", "keys": KEYS})
    async with serving(text, tmp_path) as running:
        yield running


async def _names(gateway, path="/v1/models", key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    listed = (await gateway.client.get(path, headers=headers)).json()
    assert listed["object"] == "list"
    return [model["id"] for model in listed["data"]]


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
async def test_routes_and_models_are_listed_routes_first(gateway, path):
    assert await _names(gateway, path) == ["auto", "small", "org/large"]


async def test_a_limited_key_sees_what_it_may_use(gateway):
    assert await _names(gateway, key=KEYS[1]["key"]) == ["auto"]
    assert await _names(gateway, key=KEYS[0]["key"]) == ["auto", "small", "org/large"]


async def test_one_model_is_described_as_openai_does(gateway):
    found = await gateway.client.get("/v1/models/org/large")

    assert found.json() == {
        "id": "org/large", "object": "model", "created": 0, "owned_by": "frugal-gateway"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "key"), [("nope", None), ("small", KEYS[1]["key"])])
async def test_a_model_that_is_not_there_for_this_key_is_a_404(gateway, name, key):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = await gateway.client.get(f"/v1/models/{name}", headers=headers)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_is_told_to_anyone(gateway, path):
    answer = await gateway.client.get(path, headers={"authorization": "Bearer wrong"})

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_gateway_that_could_not_record_is_alive_and_not_ready(gateway):
    lock = sqlite3.connect(gateway.books.path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    await gateway.chat()  # the upstream is not there, but that too is to be recorded
    live = await gateway.client.get("/health/live")
    ready = await gateway.client.get("/health/ready")
    lock.close()

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "not_ready"
