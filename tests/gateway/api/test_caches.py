"""Asking the caches what they hold, and making them forget, over the admin port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.settings import Settings, Team
from policies.loader import parse_policy
from tests.support.gateway_app import Gateway, asking, serving
from tests.support.policies import CHEAP, one_model, policy, remote
from tests.support.redis_server import RedisServer, with_redis
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

ANSWER = Says("one two", tokens=(10, 4))


def two_routes(url: str) -> str:
    kept = {"exact": {"ttl": "1h"}}
    models = {"large": remote(url, price=CHEAP), "small": remote(url, price=CHEAP)}
    routes = {"auto": {"model": "large", "cache": kept}, "other": {"model": "small", "cache": kept}}
    return policy(models, routes)


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[Gateway]:
    """Serve a gateway that keeps an answer of each route, one of them for a tag."""
    async with ScriptedUpstream(ANSWER) as upstream, serving(two_routes(upstream.url), folder) as g:
        await g.chat("a", frugal={"tags": ["draft"]})
        await g.chat("b")
        await g.chat("a", model="other")
        yield g


async def forget(gateway: Gateway, **asked: object) -> dict[str, object]:
    answer = await gateway.admin.post("/admin/cache/invalidate", json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


async def states(gateway: Gateway) -> list[str]:
    """Return what the cache says to the three requests."""
    answers = [
        await gateway.chat("a"),
        await gateway.chat("b"),
        await gateway.chat("a", model="other"),
    ]
    return [answer.headers["x-cache"] for answer in answers]


async def test_stats_tell_what_is_held_and_how_often_it_helped(tmp_path: Path) -> None:
    async with filled(tmp_path) as gateway:
        await gateway.chat("a")
        told = (await gateway.admin.get("/admin/cache")).json()

    assert told["process"] == {
        "hits": 1, "led": 3, "followed": 0, "kept": 3, "over_quota": 0, "store_errors": 0,
        "under_way": 0,
    }  # fmt: skip
    assert told["memory"]["entries"] == 3
    assert 0 < told["memory"]["bytes"] < told["memory"]["max_bytes"]
    assert told["shared"] is None
    assert told["workers"] == 1


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"route": "auto"}, ["miss", "miss", "exact"]),
        ({"model": "small"}, ["exact", "exact", "miss"]),
        ({"tag": "draft"}, ["miss", "exact", "exact"]),
        ({"tenant": "loopback-has-another-name"}, ["exact", "exact", "exact"]),
        ({"before": 1.0}, ["exact", "exact", "exact"]),
        ({"before": 4e9, "route": "other"}, ["exact", "exact", "miss"]),
        ({"everything": True}, ["miss", "miss", "miss"]),
    ],
)
async def test_what_is_named_is_forgotten_and_nothing_else(
    tmp_path: Path, asked: dict[str, object], left: list[str]
) -> None:
    async with filled(tmp_path) as gateway:
        dry = await forget(gateway, **asked, dry_run=True)
        assert await states(gateway) == ["exact"] * 3
        done = await forget(gateway, **asked)

        assert dry["entries"] == done["entries"] == left.count("miss")
        assert await states(gateway) == left


async def test_the_answer_to_one_request_is_forgotten_by_request_or_by_key(tmp_path: Path) -> None:
    async with filled(tmp_path) as gateway:
        tenant = gateway.books.entries()[0]["tenant"]
        dry = await forget(gateway, request=asking("a"), tenant=tenant, dry_run=True)
        assert dry["entries"] == 1
        done = await forget(gateway, key=dry["key"])

        assert done["entries"] == 1
        assert await states(gateway) == ["miss", "exact", "exact"]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"dry_run": True},
        {"everything": True, "route": "auto"},
        {"everything": False},
        {"key": "no hex"},
        {"request": {"model": "auto", "messages": []}},
        {"request": {"model": "auto"}, "tenant": "a"},
        {"request": {"model": "nope", "messages": [{"role": "user"}]}, "tenant": "a"},
        {"rout": "auto"},
    ],
)
async def test_what_names_nothing_or_too_much_is_refused(
    tmp_path: Path, asked: dict[str, object]
) -> None:
    async with filled(tmp_path) as gateway:
        answer = await gateway.admin.post("/admin/cache/invalidate", json=asked)

        assert answer.status_code in (400, 422)
        assert await states(gateway) == ["exact"] * 3


async def test_one_of_several_workers_does_not_claim_to_speak_for_all(tmp_path: Path) -> None:
    import httpx

    text = one_model("http://127.0.0.1:9")
    settings = Settings(ledger=f"sqlite:///{tmp_path}/ledger.db", team=Team(2))
    apps = create_app(settings, parse_policy(text, name="p.yaml", env={}, folder=tmp_path))
    async with (
        running(apps.public),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(apps.admin), base_url="http://127.0.0.1"
        ) as client,
    ):
        answer = await client.post("/admin/cache/invalidate", json={"everything": True})

    assert answer.status_code == 409
    assert "storage.redis" in answer.json()["error"]["message"]


@asynccontextmanager
async def running(app: object) -> AsyncIterator[None]:
    """Run an application's lifespan."""
    import uvicorn
    from uvicorn.lifespan.on import LifespanOn

    lifespan = LifespanOn(uvicorn.Config(app, lifespan="on", log_config=None))  # type: ignore[arg-type]
    await lifespan.startup()
    try:
        yield
    finally:
        await lifespan.shutdown()


async def test_with_redis_all_processes_are_counted_and_forget(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with RedisServer(tmp_path) as server:
        async with ScriptedUpstream(ANSWER) as upstream:
            text = json.dumps(with_redis(json.loads(two_routes(upstream.url)), server))
            async with (
                serving(text, tmp_path / "a") as one,
                serving(text, tmp_path / "b") as two,
            ):
                await one.chat("a")
                assert (await two.chat("a")).headers["x-cache"] == "exact"
                shared = (await one.admin.get("/admin/cache")).json()["shared"]
                assert shared["is_up"]
                async with asyncio.timeout(20):
                    while shared["processes"] != 2:  # each reports about once a second
                        await asyncio.sleep(0.05)
                        shared = (await one.admin.get("/admin/cache")).json()["shared"]
                assert shared["all_processes"]["hits"] == 1
                assert (await forget(one, route="auto"))["entries"] == 1
                assert (await one.chat("a")).headers["x-cache"] == "miss"
                server.kill()
                done = await forget(one, route="auto")
                assert done["pending"] == 1
                assert done["entries"] is None
                stats = await one.admin.get("/admin/cache")

    assert stats.json()["shared"]["pending_invalidations"] == 1
    assert not stats.json()["shared"]["is_up"]
