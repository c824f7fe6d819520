"""Tenants that share a corpus are answered with each other's answers, and nobody else is."""

from __future__ import annotations

import pytest

from tests.support.gateway_app import asking, serving
from tests.support.policies import CHEAP, DEAR, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

ANSWER = Says("Open settings and press reset", tokens=(10, 5))
KEYS = [
    {"name": name, "tenant": name, "key": f"sk-{name}-0123456789abcdef"}
    for name in ("red", "blue", "legal", "handbook")
]
SHARED = {"exact": {"ttl": "1h"}, "share": "handbook"}
ALONE = {"exact": {"ttl": "1h"}}
FIRST, AGAIN = "How do I reset my password?", "how do I reset my password please"


def sharing(url, *, cache=SHARED, **route):
    models = {"large": remote(url, price=DEAR), "small": remote(url, price=CHEAP)}
    routes = {
        "docs": {"model": "large", "cache": cache, **route},
        "more": {"model": "large", "cache": SHARED},
        "own": {"model": "large", "cache": ALONE},
    }
    access = {"anonymous": "loopback", "keys": KEYS}
    return policy(models, routes, access=access)


async def ask(gateway, tenant, prompt="hi", *, model="docs", **members):
    headers = {"authorization": f"Bearer sk-{tenant}-0123456789abcdef"}
    answer = await gateway.chat(prompt, model=model, headers=headers, **members)
    return answer.headers["x-cache"]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_routes_that_declare_a_corpus_share_and_only_their_own_answers(tmp_path, stream):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url), tmp_path) as gateway,
    ):
        found = [
            await ask(gateway, "red", stream=stream),
            await ask(gateway, "blue"),
            await ask(gateway, "handbook", "other words"),  # is called like the corpus
            await ask(gateway, "red", model="own"),
            await ask(gateway, "blue", model="own"),
            await ask(gateway, "handbook", model="own"),
            await ask(gateway, "red", model="more"),
            await ask(gateway, "blue", seed=3),
        ]
        rows = await gateway.books.until(8)

    assert found == ["miss", "exact", *["miss"] * 6]
    paid = {row["tenant"]: 0 for row in rows}
    for row in rows:
        paid[row["tenant"]] += row["cost_nano_usd"]
    assert all(paid.values())


async def test_a_rule_keeps_a_tenant_out_or_answers_it_by_other_models(tmp_path):
    rules = [
        {"when": {"tenant": "legal"}, "cache": {"share": "off"}},
        {"when": {"tenant": "handbook"}, "model": "small"},
    ]
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url, rules=rules), tmp_path) as gateway,
    ):
        tenants = ("red", "legal", "handbook", "blue", "legal", "handbook")
        found = [await ask(gateway, tenant) for tenant in tenants]

    assert found == ["miss", "miss", "miss", "exact", "exact", "exact"]


async def forget(gateway, **asked):
    answer = await gateway.admin.post("/admin/cache/invalidate", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_forgetting_a_tenant_forgets_what_it_paid_for_and_no_more(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url), tmp_path) as gateway,
    ):
        for tenant, prompt in (("red", "a"), ("blue", "b"), ("blue", "a")):
            await ask(gateway, tenant, prompt)
        done = await forget(gateway, tenant="blue")
        found = [await ask(gateway, "red", prompt) for prompt in "ab"]

    assert done["entries"] == 1
    assert found == ["exact", "miss"]


async def test_a_shared_answer_is_forgotten_by_its_request_whoever_paid(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url), tmp_path) as gateway,
    ):
        await ask(gateway, "red", "a")
        done = await forget(gateway, tenant="blue", request=asking("a", model="docs"))

        assert done["entries"] == 1
        assert await ask(gateway, "red", "a") == "miss"


NEAR = {"semantic": {"max_error": 0.5, "audit": 0, "writes_per_minute": 1}, "share": "handbook"}


async def test_questions_in_other_words_are_shared_and_each_tenant_writes_its_own_share(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url, cache=NEAR), tmp_path) as gateway,
    ):
        await ask(gateway, "red", FIRST)
        found = [
            await ask(gateway, "blue", AGAIN),
            await ask(gateway, "blue", AGAIN, model="own"),
            await ask(gateway, "red", "What are the opening hours of the library?"),
            await ask(gateway, "blue", "what are the opening hours of the library please"),
            await ask(gateway, "red", "please: what are the opening hours of the library?"),
        ]
        await forget(gateway, tenant="red")
        after = [await ask(gateway, "legal", AGAIN)]

    # Red had its one write of the minute, so blue's answer to the second question is what is kept.
    assert found == ["semantic", "miss", "miss", "miss", "semantic"]
    assert after == ["miss"]


FEW = {"exact": {"ttl": "1h", "writes_per_minute": 2}, "share": "handbook"}


async def test_a_tenant_fills_a_corpus_no_faster_than_it_may(tmp_path):
    alone = {"when": {"tenant": "legal"}, "cache": {"share": "off"}}
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url, cache=FEW, rules=[alone]), tmp_path) as gateway,
    ):
        for tenant in ("red", "legal"):
            for prompt in "abcd":
                await ask(gateway, tenant, prompt)
        found = [await ask(gateway, "blue", prompt) for prompt in "abcd"]
        again = [await ask(gateway, "red", prompt) for prompt in "cd"]
        own = [await ask(gateway, "legal", prompt) for prompt in "abcd"]
        told = (await gateway.admin.get("/admin/cache")).json()["process"]

    assert found == ["exact", "exact", "miss", "miss"]
    assert again == ["exact", "exact"]  # which blue has paid for
    assert own == ["exact"] * 4
    assert told["over_quota"] == 2


async def test_a_corpus_is_forgotten_as_a_whole_and_nothing_beside_it(tmp_path):
    semantic = {"exact": {"ttl": "1h"}, "semantic": {"max_error": 0.5, "audit": 0}}
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(sharing(upstream.url, cache={**semantic, "share": "faq"}), tmp_path) as gateway,
    ):
        for tenant, model in (("red", "docs"), ("blue", "more"), ("legal", "own")):
            await ask(gateway, tenant, FIRST, model=model)
        await ask(gateway, "blue", "b")
        by_one = await forget(gateway, corpus="faq", tenant="red", dry_run=True)
        dry = await forget(gateway, corpus="faq", dry_run=True)
        assert await ask(gateway, "legal", AGAIN) == "semantic"
        done = await forget(gateway, corpus="faq")
        found = [
            await ask(gateway, tenant, FIRST, model=model)
            for tenant, model in (("legal", "docs"), ("blue", "more"), ("legal", "own"))
        ]

    counts = [(each["entries"], each["semantic_entries"]) for each in (by_one, dry, done)]
    assert counts == [(1, 1), (2, 2), (2, 2)]
    assert found == ["miss", "exact", "exact"]
