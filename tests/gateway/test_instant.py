"""Hits that are answered on their connection say and record what all others do."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.support.clients import RawClient
from tests.support.gateway_app import Gateway, asking, serving
from tests.support.policies import CHEAP, KEPT, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

KEY = "sk-client-0123456789abcdef"
OTHER = "sk-other-0123456789abcdef"
OF_A_MOMENT = ("x-request-id", "date", "age")
OF_A_ROW = ("request_id", "started_at_us", "latency_us", "ttft_us")

MEMBERS: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"include_cost": True}},
    {"temperature": 7},
    {"frugal": {"tags": ["b", "a"]}},
    {"frugal": {"cache": "off"}},
    {"frugal": {"cache_ttl": 1e6}},
    {"user": "u1", "temperature": 0, "x": "za\u017c\u00f3\u0142\u0107 \N{OWL}"},
]
HEADERS: list[dict[str, str]] = [
    {},
    {"cache-control": "no-store"},
    {"cache-control": "max-age=3600"},
    {"cache-control": "max-age=0"},
    {"x-frugal-cache": "exact"},
    {"x-frugal-cache": "on"},
    {"x-frugal-max-usd": "1"},
    {"idempotency-key": "one"},
    {"connection": "close"},
]


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(Says("one two", tokens=(10, 2))) as server:
        yield server


def _policy(url: str, **sections: Any) -> str:
    keys = [{"name": "ci", "key": KEY}, {"name": "other", "key": OTHER}]
    routes = {"auto": {"model": "large", "cache": KEPT}}
    models = {"large": remote(url, price=CHEAP)}
    return policy(models, routes, access={"keys": keys}, **sections)


def _head(body: bytes, key: str, said: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n"
    return f"{head}{lines}content-length: {len(body)}\r\n".encode()


async def _answer(client: RawClient) -> tuple[str, dict[str, str], bytes]:
    first, *lines = (await client.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    told = dict(line.split(": ", 1) for line in lines if line)
    if " 100 " in first:
        return await _answer(client)
    if "content-length" in told:
        return first, told, await client.reader.readexactly(int(told["content-length"]))
    return first, told, await client.reader.readuntil(b"\r\n0\r\n\r\n")


async def _whole(gateway: Gateway, body: bytes, key: str, said: dict[str, str]) -> Any:
    """Ask in one piece, which may be answered at once."""
    async with RawClient(gateway.port) as client:
        client.writer.write(_head(body, key, said) + b"\r\n" + body)
        return await _answer(client)


async def _in_pieces(gateway: Gateway, body: bytes, key: str, said: dict[str, str]) -> Any:
    """Ask with a body that comes once it is asked for, which the application answers."""
    async with RawClient(gateway.port) as client:
        client.writer.write(_head(body, key, said) + b"expect: 100-continue\r\n\r\n" + body[:1])
        client.writer.write(body[1:])
        return await _answer(client)


def _lasting(answer: tuple[str, dict[str, str], bytes]) -> Any:
    """Return what two answers to the same request have in common."""
    status, told, body = answer
    ident = told["x-request-id"].encode()
    told = {name: value for name, value in told.items() if name not in OF_A_MOMENT}
    if b'"frugal":' in body:  # the event of the cost has the moment in it
        head, _, rest = body.partition(b'data: {"id":"' + ident)
        body = head[:-8] + rest[rest.index(b'"model"') :]
    return status, list(told.items()), body


async def test_a_hit_says_and_records_what_the_application_would(upstream, tmp_path):
    hits = 0
    async with serving(_policy(upstream.url), tmp_path) as gateway:
        for more, said in itertools.product(MEMBERS, HEADERS):
            body = json.dumps(asking(**more)).encode()
            await _in_pieces(gateway, body, KEY, said)  # by now it is kept, where it may be
            slow = await _in_pieces(gateway, body, KEY, said)
            fast = await _whole(gateway, body, KEY, said)
            assert _lasting(fast) == _lasting(slow), (more, said)
            if slow[1].get("x-cache") == "exact":
                hits += 1
                rows = gateway.books.entries()[-2:]
                one, two = ({k: r[k] for k in r if k not in OF_A_ROW} for r in rows)
                assert one == two

    assert hits > len(MEMBERS) * len(HEADERS) // 3


async def test_a_hit_is_in_the_ledger_before_its_answer_leaves(upstream, tmp_path):
    body = json.dumps(asking()).encode()
    async with serving(_policy(upstream.url), tmp_path) as gateway:
        await _whole(gateway, body, KEY, {})
        calls = gateway.watched.calls
        _, told, _ = await _whole(gateway, body, KEY, {})
        rows = gateway.books.entries()

    assert gateway.watched.calls == calls  # no task was begun for it
    assert told["x-cache"] == "exact"
    assert [row["request_id"] for row in rows][-1] == told["x-request-id"]


async def test_requests_behind_a_hit_are_answered_in_their_order(upstream, tmp_path):
    first, second = (json.dumps(asking(p)).encode() for p in ("hi", "and you?"))
    async with serving(_policy(upstream.url), tmp_path) as gateway:
        await _whole(gateway, first, KEY, {})
        async with RawClient(gateway.port) as client:
            asked = [_head(b, KEY, {}) + b"\r\n" + b for b in (first, second, first, b"[]", first)]
            client.writer.write(b"".join(asked))
            got = [await _answer(client) for _ in asked]

    assert [told.get("x-cache") for _, told, _ in got] == ["exact", "miss", "exact", None, "exact"]


async def test_a_hit_past_its_callers_rate_is_refused(upstream, tmp_path):
    body = json.dumps(asking()).encode()
    text = _policy(upstream.url, limits={"requests_per_minute": 2})
    async with serving(text, tmp_path) as gateway:
        got = [await _whole(gateway, body, KEY, {}) for _ in range(3)]
        others = await _whole(gateway, body, OTHER, {})

    assert [status.split(" ")[1] for status, _, _ in got] == ["200", "200", "429"]
    assert got[1][1]["x-ratelimit-remaining-requests"] == "0"
    assert others[0].startswith("HTTP/1.1 200")


async def test_nobody_is_let_in_to_a_hit_without_a_key(upstream, tmp_path):
    body = json.dumps(asking()).encode()
    async with serving(_policy(upstream.url), tmp_path) as gateway:
        await _whole(gateway, body, KEY, {})
        status, _, _ = await _whole(gateway, body, "sk-wrong", {})

    assert status.startswith("HTTP/1.1 401")
