from __future__ import annotations

import pytest

from bench.in_process import in_process, lifespan
from policies.schema import Policy


async def test_the_gateway_answers_without_a_socket(tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_text(
        '{"query_id": "q", "model": "small", "prompt": "hi", "response": "hello",'
        ' "prompt_tokens": 1, "completion_tokens": 1}'
    )
    model = {"provider": "recorded", "outcomes": table, "price": "unknown_is_free"}
    policy = Policy.model_validate(
        {"version": 1, "access": {"anonymous": "loopback"}, "models": {"small": model}}
    )
    body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}

    async with in_process(policy, ledger=f"sqlite:///{tmp_path}/ledger.db") as client:
        answer = await client.post("/v1/chat/completions", json=body)

    assert answer.json()["choices"][0]["message"]["content"] == "hello"


async def test_an_application_that_dies_at_its_start_is_not_waited_for():
    async def dies(scope, receive, send):
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        async with lifespan(dies):
            raise AssertionError("it must not start")


async def test_an_application_that_refuses_to_start_says_why():
    async def refuses(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no price"})

    with pytest.raises(RuntimeError, match="startup of the gateway failed: no price"):
        async with lifespan(refuses):
            raise AssertionError("it must not start")


async def test_an_application_that_leaves_early_is_an_error():
    async def leaves(scope, receive, send):
        await receive()

    with pytest.raises(RuntimeError, match="ended before its startup was complete"):
        async with lifespan(leaves):
            raise AssertionError("it must not start")
