from __future__ import annotations

import pytest

from gateway.providers.cache_key import prompt_cache_key
from gateway.providers.openai import OpenAIProvider
from policies.schema import Model
from tests.support.chat import call, collect, completion
from tests.support.scripted_upstream import ScriptedUpstream, answer

LONG = {"role": "system", "content": "Be kind. " * 600}
SHORT = {"role": "system", "content": "Be kind."}
TALE = {"role": "user", "content": "Once upon a time. " * 300}


def key(*messages, tenant="a", **members):
    return prompt_cache_key({"messages": list(messages), **members}, tenant)


def asking(text):
    return {"role": "user", "content": text}


def test_requests_that_share_a_long_system_prompt_share_a_key():
    one, other = key(LONG, asking("hi")), key(LONG, asking("ho"))

    assert one == other
    assert len(one) <= 64
    assert "kind" not in one


def test_tenants_never_share_a_key():
    assert key(LONG, asking("hi")) != key(LONG, asking("hi"), tenant="b")


def test_a_conversation_keeps_its_key_as_it_grows():
    said = {"role": "assistant", "content": "and?"}

    assert key(SHORT, TALE) == key(SHORT, TALE, said, asking("go on"))
    assert key(SHORT, TALE) != key(SHORT, {**TALE, "content": TALE["content"] + "."})


def test_tools_are_part_of_the_beginning():
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 5000}}]

    assert key(SHORT, asking("hi"), tools=tools) == key(SHORT, asking("ho"), tools=tools)
    assert key(LONG, asking("hi"), tools=tools) != key(LONG, asking("hi"))


@pytest.mark.parametrize("messages", [(asking("hi"),), (SHORT, asking("hi"))])
def test_short_prompts_have_none(messages):
    assert key(*messages) is None
    assert key(*messages, tools=[{"type": "function"}]) is None


def test_text_in_parts_counts():
    parts = {"role": "user", "content": [{"type": "text", "text": TALE["content"]}]}

    assert key(parts, asking("hi")) is not None


async def sent(members, **body):
    async with ScriptedUpstream([[answer(completion())]]) as upstream:
        declared = {"provider": "openai", "base_url": upstream.url, **members}
        provider = OpenAIProvider.from_model("m", Model.model_validate(declared))
        await collect(provider, call(messages=[LONG, asking("hi")], **body))
        await provider.aclose()
        return upstream.requests[0].json.get("prompt_cache_key")


async def test_a_compatible_server_gets_a_key_only_where_the_policy_says_so():
    assert await sent({}) is None
    assert await sent({"prompt_cache": "off"}) is None
    assert (await sent({"prompt_cache": "auto"})).startswith("fg-")


async def test_a_clients_own_key_stays():
    assert await sent({"prompt_cache": "auto"}, prompt_cache_key="mine") == "mine"


@pytest.mark.parametrize(
    ("members", "is_keyed"),
    [
        ({}, True),
        ({"prompt_cache": "off"}, False),
        ({"base_url": "https://us.openai.azure.com/openai/v1"}, True),
        ({"base_url": "https://api.example.com/v1"}, False),
    ],
)
def test_openai_itself_gets_keys_by_itself(members, is_keyed):
    model = Model.model_validate({"provider": "openai", "api_key": "k", **members})
    dialect = OpenAIProvider.from_model("m", model)._client._dialect
    body = dialect.body(call(messages=[LONG, asking("hi")]))

    assert ("prompt_cache_key" in body) is is_keyed
