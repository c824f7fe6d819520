"""What clients say of answers, over the public port."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.api.feedback import PER_MINUTE, Pace
from gateway.errors import RateLimited
from tests.support.gateway_app import serving
from tests.support.policies import KEPT, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

KEYS = [
    {"name": name, "tenant": tenant, "key": f"sk-{name}-0123456789abcdef"}
    for name, tenant in (("one", "ours"), ("two", "ours"), ("other", "theirs"))
]
KEYS += [{"name": "few", "tenant": "ours", "key": "sk-few-0123456789abcdef", "scopes": ["else"]}]


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(Says("hi", tokens=(10, 5))) as running:
        yield running


@pytest.fixture
async def gateway(upstream, tmp_path):
    models = {"small": remote(upstream.url)}
    routes = {name: {"model": "small", "cache": KEPT} for name in ("auto", "else")}
    text = policy(models, routes, access={"anonymous": "loopback", "keys": KEYS})
    async with serving(text, tmp_path) as running:
        yield running


def bearer(name):
    return {"authorization": f"Bearer sk-{name}-0123456789abcdef"}


async def answered(gateway, prompt="hi", name="one"):
    response = await gateway.chat(prompt, headers=bearer(name))
    assert response.status_code == 200, response.text
    return response.headers["x-request-id"]


async def say(gateway, name="one", **said):
    return await gateway.client.post("/v1/feedback", json=said, headers=bearer(name))


async def quality(gateway):
    return (await gateway.admin.get("/admin/routes/auto/quality")).json()["feedback"]


async def test_a_word_on_an_answer_is_kept_and_shown(gateway):
    first = await answered(gateway)
    cached = await answered(gateway)
    told = await say(gateway, request_id=first, rating="good", label="B")
    bad = await say(gateway, request_id=cached, score=0.25)

    assert told.status_code == bad.status_code == 200, (told.text, bad.text)
    assert told.json() == {
        "object": "feedback", "request_id": first, "route": "auto", "model": "small",
        "score": 1.0, "label": None, "counts": True,
    }  # fmt: skip
    shown = await quality(gateway)
    assert sorted((h["cache"], h["words"], h["bad"], h["mean_score"]) for h in shown) == [
        ("exact", 1, 1, 0.25),
        ("miss", 1, 0, 1.0),
    ]


async def test_what_is_said_again_takes_the_place_of_what_was_said(gateway):
    request_id = await answered(gateway)
    for score in (1.0, 0.0, 0.0):
        assert (await say(gateway, request_id=request_id, score=score)).status_code == 200
    await say(gateway, "two", request_id=request_id, rating="good")

    (shown,) = await quality(gateway)
    assert (shown["words"], shown["mean_score"]) == (2, 0.5)


async def test_another_tenants_request_is_as_if_it_were_not_there(gateway):
    request_id = await answered(gateway)
    foreign = await say(gateway, "other", request_id=request_id, rating="bad")
    unknown = await say(gateway, "other", request_id="req_none", rating="bad")

    assert foreign.status_code == unknown.status_code == 404
    assert foreign.text.replace(request_id, "") == unknown.text.replace("req_none", "")
    assert await quality(gateway) == []


async def test_a_key_says_nothing_of_routes_that_it_may_not_use(gateway):
    request_id = await answered(gateway)

    assert (await say(gateway, "few", request_id=request_id, rating="bad")).status_code == 403


async def test_nobody_unknown_is_listened_to(gateway):
    said = {"request_id": "req_none", "rating": "good"}
    response = await gateway.client.post("/feedback", json=said, headers=bearer("nobody"))

    assert response.status_code == 401


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "send for example"),
        ("[]", "send for example"),
        ("{}", "request_id"),
        ('{"request_id": "x"}', "neither"),
        ('{"request_id": "x", "rating": "good", "score": 1}', "both"),
        ('{"request_id": "x", "rating": "superb"}', "superb"),
        ('{"request_id": "x", "score": 1.5}', "score"),
        ('{"request_id": "x", "score": -0.1}', "score"),
        ('{"request_id": "x", "score": NaN}', "send for example"),
        ('{"request_id": "x", "score": 1e999}', "score"),
        ('{"request_id": "x", "score": true}', "score"),
        ('{"request_id": "x", "score": "1"}', "score"),
        ('{"request_id": "", "score": 1}', "request_id"),
        ('{"request_id": 7, "score": 1}', "request_id"),
        ('{"request_id": "x", "score": 1, "weight": 9}', "weight"),
        ('{"request_id": "x", "score": 1, "label": "%s"}' % ("y" * 201), "label"),
        (b"\xff\xfe", "send for example"),
        ("[" * 3000, "send for example"),
    ],
)
async def test_what_means_nothing_is_refused_by_name(gateway, body, says):
    response = await gateway.client.post("/v1/feedback", content=body, headers=bearer("one"))

    assert response.status_code == 400, response.text
    assert says in response.json()["error"]["message"]


async def test_a_long_body_is_not_read_to_its_end(gateway):
    response = await gateway.client.post("/v1/feedback", content=b" " * 5000, headers=bearer("one"))

    assert response.status_code == 413


async def test_words_on_a_request_outlive_the_process(gateway, tmp_path):
    request_id = await answered(gateway)
    await say(gateway, request_id=request_id, rating="bad")

    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        (row,) = connection.execute("SELECT key, tenant, score, weight FROM feedback").fetchall()
    connection.close()
    assert row == ("one", "ours", 0.0, 1.0)


def test_each_key_speaks_at_its_own_pace():
    pace = Pace()
    for _ in range(PER_MINUTE):
        pace.take("one", 0.0)
    pace.take("two", 0.0)

    with pytest.raises(RateLimited, match="a minute") as refused:
        pace.take("one", 0.0)
    assert refused.value.retry_after == "1"
    pace.take("one", 1.0)
