"""HTTP on one connection: requests one after the other, half a request, and what follows it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.clients import RawClient
from tests.support.gateway_app import asking, serving
from tests.support.policies import CHEAP, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("one two", tokens=(10, 2))
KEY = "sk-client-0123456789abcdef"


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as server:
        yield server


@pytest.fixture
async def gateway(upstream, tmp_path):
    text = policy(
        {"large": remote(upstream.url, price=CHEAP)},
        access={"keys": [{"name": "ci", "key": KEY}]},
        server={"max_body": 100_000},
    )
    async with serving(text, tmp_path) as running:
        yield running


def _request(body: bytes, key: str = KEY) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


GOOD = _request(json.dumps(asking(model="large")).encode())


async def _answer(client: RawClient) -> tuple[int, dict[str, str], bytes]:
    head = (await client.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    async with asyncio.timeout(20):
        body = await client.reader.readexactly(int(headers["content-length"]))
    return int(head[0].split(" ")[1]), headers, body


async def test_pipelined_requests_are_answered_in_their_order(gateway):
    async with RawClient(gateway.port) as client:
        client.writer.write(GOOD + _request(b"[]") + GOOD)
        statuses = [(await _answer(client))[0] for _ in range(3)]

    assert statuses == [200, 400, 200]


@pytest.mark.parametrize(
    "bad",
    [_request(b"nonsense"), _request(b"{}" * 20_000), _request(b" " * 90_000, key="sk-wrong")],
    ids=["no JSON", "long and no JSON", "a bad key before a long body"],
)
async def test_a_connection_serves_on_after_a_refusal(gateway, bad):
    async with RawClient(gateway.port) as client:
        client.writer.write(bad)
        refused, _, _ = await _answer(client)
        client.writer.write(GOOD)
        status, _, body = await _answer(client)

    assert refused in (400, 401)
    assert status == 200
    assert json.loads(body) == ANSWER.body()


async def test_a_key_is_checked_before_a_body_is_read(gateway):
    head, _, _ = _request(b" " * 1_000, key="sk-wrong").partition(b"\r\n\r\n")
    async with RawClient(gateway.port) as client:
        client.writer.write(head + b"\r\n\r\n")
        status, _, _ = await _answer(client)

    assert status == 401


async def test_a_client_that_leaves_amid_its_body_leaves_nothing_behind(gateway, upstream):
    async with RawClient(gateway.port) as client:
        client.writer.write(GOOD[:-10])
        await client.writer.drain()
        await gateway.chat(model="large", headers={"authorization": f"Bearer {KEY}"})
        client.leave()
    await gateway.until_gone(1)

    assert len(gateway.books.entries()) == 1
    assert len(upstream.requests) == 1


async def test_a_client_that_asks_first_is_told_to_go_on(gateway):
    head, _, body = GOOD.partition(b"\r\n\r\n")
    async with RawClient(gateway.port) as client:
        client.writer.write(head + b"\r\nexpect: 100-continue\r\n\r\n")
        interim = await client.until(b"\r\n\r\n")
        client.writer.write(body)
        status, _, _ = await _answer(client)

    assert interim.startswith(b"HTTP/1.1 100")
    assert status == 200


async def test_an_old_client_gets_its_answer_and_the_end_of_the_connection(gateway):
    async with RawClient(gateway.port) as client:
        client.writer.write(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, headers, _ = await _answer(client)
        rest = await client.reader.read()

    assert status == 200
    assert headers["connection"] == "close"
    assert rest == b""


async def test_garbage_after_a_request_does_not_get_into_its_stream(tmp_path):
    async with (
        ScriptedUpstream(lambda _: [*ANSWER.until(1), Hold()]) as slow,
        serving(policy({"large": remote(slow.url)}), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.post(asking(model="large", stream=True))
        await client.until(b'"one"')
        client.writer.write(b"\x00garbage\r\n\r\n")
        rest = await client.reader.read()
        await slow.until_gone()

    assert b"HTTP/1.1" not in rest


async def test_ids_differ_and_grow(gateway):
    headers = {"authorization": f"Bearer {KEY}"}
    found = [
        (await gateway.chat(model="large", headers=headers)).headers["x-request-id"]
        for _ in range(5)
    ]

    assert len(set(found)) == 5
    assert found == sorted(found)
    assert all(each.startswith("req_") for each in found)


async def test_a_clients_own_request_id_is_not_taken_over(gateway):
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "mine"}
    answer = await gateway.chat(model="large", headers=headers)

    assert answer.headers["x-request-id"] != "mine"
