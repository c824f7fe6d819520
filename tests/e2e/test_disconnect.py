"""A client that leaves: the work behind it stops, and the ledger says what it has cost so far."""

from __future__ import annotations

import pytest

from tests.support.clients import RawClient
from tests.support.gateway_app import asking, serving
from tests.support.policies import CHEAP, DEAR, one_model, policy, remote, two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("one two three four", tokens=(10, 4))


def _stuck(received):
    """Begin to answer, and stop there."""
    return [*ANSWER.until(2), Hold()] if received.json["stream"] else [Hold()]


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_closes_the_upstream_and_is_accounted_as_abandoned(tmp_path, stream):
    async with (
        ScriptedUpstream(_stuck) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.post(asking(stream=stream))
        await (client.until(b'" two"') if stream else upstream.until(lambda: upstream.requests))
        client.leave()
        await upstream.until_gone()
        (row,) = await gateway.books.until(1)

    assert row["state"] == "abandoned"
    assert row["estimated"]
    assert row["lower_nano_usd"] <= row["cost_nano_usd"] <= row["upper_nano_usd"]
    # A provider would bill the prompt, the two words, and what it made until it noticed.
    assert row["upper_nano_usd"] >= 10_000 + 4 * 2_000
    (line,) = gateway.books.lines(row["request_id"])
    assert line["outcome"] == "abandoned"
    assert line["model"] == "large"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_abandoned_answer_is_not_kept(tmp_path, stream):
    scripts = [_stuck, ANSWER]
    async with (
        ScriptedUpstream(lambda r: scripts.pop(0)(r)) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.post(asking(stream=stream))
            await upstream.until(lambda: upstream.requests)
            client.leave()
            await upstream.until_gone()
        await gateway.books.until(1)
        response = await gateway.chat(stream=stream)

    assert response.headers["x-cache"] == "miss"


async def test_leaving_a_client_that_reads_nothing_more_stops_the_upstream(tmp_path):
    """A stream that nobody reads fills the buffers between; leaving must still be noticed."""
    long = Says("word " * 2_000 + "end", tokens=(10, 2_000))
    block = b"".join(long.until(2_000))

    def endless(received):
        yield block
        while True:
            yield block.partition(b"\r\n\r\n")[2]

    async with (
        ScriptedUpstream(endless) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.post(asking(stream=True))
            await client.until(b"data: ")
        (row,) = await gateway.books.until(1)
        await upstream.until(lambda: upstream.open == 0)

    assert row["state"] == "abandoned"


async def test_leaving_while_a_draft_is_held_stops_it_and_asks_nobody_else(tmp_path):
    async with (
        ScriptedUpstream(_stuck) as small,
        ScriptedUpstream(ANSWER) as large,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.post(asking(stream=True))
        await small.until(lambda: small.requests)
        client.leave()
        await small.until_gone()
        (row,) = await gateway.books.until(1)

    assert row["state"] == "abandoned"
    assert not large.requests


async def test_leaving_during_keepalive_comments_stops_the_work(tmp_path):
    cascade = {"keepalive": "20ms"}
    async with (
        ScriptedUpstream(_stuck) as small,
        ScriptedUpstream(ANSWER) as large,
        serving(two_tiers(small.url, large.url, cascade=cascade), tmp_path) as gateway,
        RawClient(gateway.port) as client,
    ):
        await client.post(asking(stream=True))
        await client.until(b": keep-alive")
        client.leave()
        await small.until_gone()
        (row,) = await gateway.books.until(1)

    assert row["state"] == "abandoned"


async def test_leaving_while_a_second_opinion_is_asked_keeps_both_lines(tmp_path):
    models = {
        "small": remote("{small}", price=CHEAP),
        "second": remote("{second}", price=CHEAP),
        "large": remote("{large}", price=DEAR),
    }
    confidence = {"kind": "agreement", "with": "second"}
    cascade = {"tiers": ["small", "large"], "confidence": confidence}
    text = policy(models, {"auto": {"cascade": cascade}})
    async with (
        ScriptedUpstream(ANSWER) as small,
        ScriptedUpstream(_stuck) as second,
        ScriptedUpstream(ANSWER) as large,
    ):
        for name, server in (("small", small), ("second", second), ("large", large)):
            text = text.replace(f"{{{name}}}", server.url)
        async with serving(text, tmp_path) as gateway, RawClient(gateway.port) as client:
            await client.post(asking())
            await second.until(lambda: second.requests)
            client.leave()
            await second.until_gone()
            (row,) = await gateway.books.until(1)

    assert row["state"] == "abandoned"
    assert not large.requests
    found = [
        (x["model"], x["purpose"], x["outcome"]) for x in gateway.books.lines(row["request_id"])
    ]
    assert found == [("small", "serve", "abandoned"), ("second", "judge", "abandoned")]
    assert row["cost_nano_usd"] >= 10_000 + 8_000
