"""Two gateways on machines of their own: one has paid for an answer, both give it."""

from __future__ import annotations

import asyncio
import json

from tests.support.gateway_app import serving
from tests.support.policies import one_model
from tests.support.redis_server import RedisServer, with_redis
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

ANSWER = Says("Open settings and press reset", tokens=(10, 5))
FIRST = "How do I reset my password?"
CACHE = {"semantic": {"max_error": 0.5, "audit": 0}}


async def cache_says(gateway, question):
    answer = await gateway.chat(question)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER.text
    return answer.headers["x-cache"]


async def test_an_answer_crosses_over_and_so_does_its_end(tmp_path):
    with RedisServer(tmp_path) as redis:
        async with ScriptedUpstream(ANSWER) as upstream:
            policy = json.dumps(with_redis(json.loads(one_model(upstream.url, cache=CACHE)), redis))
            for name in ("one", "other"):
                (tmp_path / name).mkdir()
            async with (
                serving(policy, tmp_path / "one") as one,
                serving(policy, tmp_path / "other") as other,
            ):
                assert await cache_says(one, FIRST) == "miss"
                async with asyncio.timeout(20):
                    while await cache_says(other, "how do I reset my password please") == "miss":
                        pass
                asked = len(upstream.requests)
                redis.kill()
                assert await cache_says(other, "please, how do I reset my password") == "semantic"
                assert await cache_says(one, "how do I reset my password please") == "semantic"
                assert len(upstream.requests) == asked
                redis.start()
                async with asyncio.timeout(20):
                    body = {"route": "auto"}
                    while (await one.admin.post("/admin/cache/invalidate", json=body)).json()[
                        "pending"
                    ]:
                        pass
                    while await cache_says(other, FIRST) == "semantic":
                        pass

    rows = [*one.books.entries(), *other.books.entries()]
    assert {row["state"] for row in rows} == {"settled"}
