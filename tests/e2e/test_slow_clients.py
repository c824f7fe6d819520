"""Clients that send a request and never finish it: their connections end, others are served on."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.clients import RawClient, StandstillClient
from tests.support.gateway_app import asking, events_of, serving, text_of
from tests.support.policies import one_model
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("The answer is 12")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"


@pytest.fixture
async def served(tmp_path):
    async with ScriptedUpstream(ANSWER) as upstream:
        text = one_model(upstream.url)
        text = text.replace(
            '"version": 1', '"version": 1, "server": {"head_within": "80ms", "body_within": "90ms"}'
        )
        async with serving(text, tmp_path) as gateway:
            yield gateway


async def _heard(gateway, *pieces):
    """Return all that comes until the gateway closes the connection."""
    async with RawClient(gateway.port) as client:
        client.writer.write(b"".join(pieces))
        return await client.reader.read(-1)


async def test_a_connection_that_asks_nothing_is_closed(served):
    assert await _heard(served) == b""
    assert (await served.chat()).status_code == 200


@pytest.mark.parametrize("piece", [b"P", HEAD, HEAD + b"x-a: b"])
async def test_a_head_without_end_is_a_408(served, piece):
    heard = await _heard(served, piece)

    assert heard.startswith(b"HTTP/1.1 408 ")
    error = json.loads(heard.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "request_timeout"
    assert "head within 0.08 s" in error["message"]


async def test_a_body_without_end_is_a_408(served):
    heard = await _heard(served, HEAD, b"content-length: 20\r\n\r\n", b'{"model"')

    assert heard.startswith(b"HTTP/1.1 408 ")
    assert b"body within 0.09 s" in heard


async def test_a_connection_that_was_used_is_held_to_it_again(served):
    async with RawClient(served.port) as client:
        await client.post({"model": "auto", "messages": [{"role": "user", "content": "hi"}]})
        await client.until(b"\r\n\r\n")
        client.writer.write(HEAD)
        rest = await client.reader.read(-1)

    assert b"HTTP/1.1 408 " in rest


async def test_an_answer_may_take_longer_than_its_request(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[*ANSWER.until(1), hold, *ANSWER.since(1)]]) as upstream:
        text = one_model(upstream.url).replace(
            '"version": 1', '"version": 1, "server": {"head_within": "20ms", "body_within": "20ms"}'
        )
        async with serving(text, tmp_path) as gateway, RawClient(gateway.port) as client:
            body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "a"}]}
            await client.post(body)
            await hold.reached.wait()
            assert await _heard(gateway) == b""  # an idle connection has met its end meanwhile
            hold.release()
            heard = await client.until(b"[DONE]")

    assert b"HTTP/1.1 200" in heard


LONG = Says(" ".join(["x" * 250_000] * 48), tokens=(10, 48))
"""More than what lies between two sockets holds."""


@pytest.mark.parametrize(("stream", "state"), [(True, "abandoned"), (False, "settled")])
async def test_a_client_that_reads_nothing_is_let_go_of(tmp_path, stream, state):
    async with ScriptedUpstream(
        lambda asked: (ANSWER if "again" in str(asked.json) else LONG)(asked)
    ) as upstream:
        text = one_model(upstream.url).replace(
            '"version": 1', '"version": 1, "server": {"send_within": "50ms"}'
        )
        async with serving(text, tmp_path) as gateway:
            async with StandstillClient(gateway.port) as client:
                await client.post(asking(stream=stream))
                await client.until_cut_off()
            rows = await gateway.books.until(1)
            assert (await gateway.chat("again")).json() == ANSWER.body()

    assert [row["state"] for row in rows] == [state]


async def test_one_who_follows_has_the_answer_whose_leader_was_let_go_of(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[*LONG.until(1), hold, *LONG.since(1)]]) as upstream:
        text = one_model(upstream.url).replace(
            '"version": 1', '"version": 1, "server": {"send_within": "200ms"}'
        )
        async with (
            serving(text, tmp_path) as gateway,
            StandstillClient(gateway.port) as leader,
        ):
            await leader.post(asking(stream=True))
            await gateway.until_under_way(1)
            follower = asyncio.create_task(gateway.chat(stream=True))
            await gateway.until_under_way(2)
            hold.release()
            await leader.until_cut_off()
            followed = await follower

    assert text_of(events_of(followed)) == LONG.text
    assert len(upstream.requests) == 1
