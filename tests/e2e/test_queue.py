"""Requests that wait their turn, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clients import RawClient
from tests.support.gateway_app import asking, serving
from tests.support.policies import CHEAP, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("The answer is 12", tokens=(10, 5))
KEYS = {
    "access": {
        "anonymous": "loopback",
        "keys": [
            {"name": "a", "tenant": "one", "key": "key-a"},
            {"name": "b", "tenant": "two", "key": "key-b"},
            {"name": "vip", "tenant": "one", "key": "key-vip", "limits": {"priority": "high"}},
        ],
    }
}
PATIENT = {"queue": {"max_wait": "20s", "max_waiting": 8}}


class Slow:
    """A model whose answers wait until each is released, in their order."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.prompts: list[str] = []

    def __call__(self, received):
        self.prompts.append(received.json["messages"][0]["content"])
        self.holds.append(Hold())
        return [*ANSWER.until(1), self.holds[-1], *ANSWER.since(1)]


@pytest.fixture
async def slow():
    model = Slow()
    async with ScriptedUpstream(model) as server:
        model.server = server
        yield model


def _text(url, limits):
    models = {"m": remote(url, price=CHEAP)}
    routes = {"auto": {"model": "m", "limits": {"concurrent": 1}}}
    return policy(models, routes, limits=limits, **KEYS)


def _as(key):
    return {"authorization": f"Bearer key-{key}"}


async def _queued(gateway, *asked):
    """Ask one after the other, each once the last has been taken in; return the tasks."""
    tasks = []
    for key, prompt in asked:
        asking_now = gateway.chat(prompt, stream=True, headers=_as(key))
        tasks.append(asyncio.create_task(asking_now))
        await gateway.until_under_way(len(tasks))
    return tasks


async def _finish(slow, tasks):
    for number in range(len(tasks)):
        await slow.server.until(lambda n=number: len(slow.holds) > n)
        slow.holds[number].release()
    return [reply.status_code for reply in await asyncio.gather(*tasks)]


async def test_a_request_waits_for_room_and_tenants_take_turns(slow, tmp_path):
    async with serving(_text(slow.server.url, PATIENT), tmp_path) as gateway:
        tasks = await _queued(gateway, ("a", "a0"), ("a", "a1"), ("a", "a2"), ("b", "b0"))
        statuses = await _finish(slow, tasks)

    assert statuses == [200] * 4
    assert slow.prompts in (["a0", "a1", "b0", "a2"], ["a0", "b0", "a1", "a2"])


async def test_a_higher_priority_goes_first(slow, tmp_path):
    async with serving(_text(slow.server.url, PATIENT), tmp_path) as gateway:
        tasks = await _queued(gateway, ("b", "b0"), ("a", "a0"), ("vip", "v0"))
        await _finish(slow, tasks)

    assert slow.prompts == ["b0", "v0", "a0"]


async def test_a_wait_has_an_end_that_says_so(slow, tmp_path):
    limits = {"queue": {"max_wait": "50ms"}}
    async with serving(_text(slow.server.url, limits), tmp_path) as gateway:
        (first,) = await _queued(gateway, ("a", "a0"))
        refused = await gateway.chat("b0", headers=_as("b"))
        statuses = await _finish(slow, [first])

    assert statuses == [200]
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "it waited 0.05 s for its turn" in refused.json()["error"]["message"]


async def test_a_full_queue_refuses_at_once(slow, tmp_path):
    limits = {"queue": {"max_wait": "20s", "max_waiting": 1}}
    async with serving(_text(slow.server.url, limits), tmp_path) as gateway:
        tasks = await _queued(gateway, ("a", "a0"), ("a", "a1"))
        refused = await gateway.chat("a2", headers=_as("a"))
        statuses = await _finish(slow, tasks)

    assert statuses == [200, 200]
    assert refused.status_code == 429
    assert "1 requests wait already" in refused.json()["error"]["message"]


async def test_who_leaves_the_queue_is_not_asked_for(slow, tmp_path):
    async with serving(_text(slow.server.url, PATIENT), tmp_path) as gateway:
        tasks = await _queued(gateway, ("a", "a0"))
        async with RawClient(gateway.port) as client:
            await client.post(asking("gone"))
            await gateway.until_under_way(2)
        await gateway.until_gone(1)
        tasks += [asyncio.create_task(gateway.chat("b0", stream=True, headers=_as("b")))]
        statuses = await _finish(slow, tasks)
        rows = await gateway.books.until(3)

    assert statuses == [200, 200]
    assert slow.prompts == ["a0", "b0"]
    assert sorted(row["state"] for row in rows) == ["abandoned", "settled", "settled"]


async def test_a_rate_is_waited_for_where_the_wait_is_short_and_refused_where_it_is_not(tmp_path):
    async with ScriptedUpstream(ANSWER) as upstream:
        models = {"m": remote(upstream.url, price=CHEAP)}
        limits = {"tokens_per_minute": 60_000, "queue": {"max_wait": "2s"}}
        async with serving(policy(models, limits=limits), tmp_path) as gateway:

            async def ask(most):
                reply = await gateway.chat("hi", model="m", max_tokens=most)
                return reply.status_code

            found = await asyncio.gather(ask(30_000), ask(29_900), ask(300), ask(59_000))

    assert found == [200] * 4  # what an answer did not use is given back to who waits


async def test_more_than_a_wait_can_bring_is_refused_at_once(tmp_path):
    async with ScriptedUpstream(ANSWER) as upstream:
        models = {"m": remote(upstream.url, price=CHEAP)}
        limits = {"requests_per_minute": 1, "queue": {"max_wait": "2s"}}
        async with serving(policy(models, limits=limits), tmp_path) as gateway:
            first = await gateway.chat("a", model="m")
            second = await gateway.chat("b", model="m")

    assert (first.status_code, second.status_code) == (200, 429)
    assert int(second.headers["retry-after"]) > 50
