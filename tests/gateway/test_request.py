from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.keys import Caller
from gateway.errors import InvalidRequest
from gateway.request import MAX_DEPTH, parse_chat

CALLER = Caller(key="ci", tenant="platform", tags=frozenset(["batch"]))


def chat(**members: Any) -> bytes:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **members}
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON"),
        (b"[]", "found an array"),
        (b"null", "found null"),
        (b"7", "found a number"),
        (b'"x"', "found a string"),
        (b"\xff\xfe", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"{}", "model"),
        (b'{"model": "auto"}', "messages"),
        (b'{"model": 7, "messages": [{"role": "user"}]}', "model: Expected `str`"),
        (b'{"model": "auto", "messages": "hi"}', "messages: Expected `array`"),
        (b'{"model": "auto", "messages": []}', "length >= 1"),
        (b'{"model": "auto", "messages": [7]}', "messages[0]"),
        (b'{"model": "auto", "messages": [{"content": "hi"}]}', "messages[0]"),
        (b'{"model": "auto", "messages": [{"role": "user", "content": NaN}]}', "not valid JSON"),
        (b"[" * 1000 + b"]" * 1000, "not valid JSON"),
        (b'{"a":' * 10**5, "not valid JSON"),
        (chat(n=0), "n:"),
        (chat(n=True), "n:"),
        (chat(temperature="hot"), "temperature"),
        (chat(temperature=3), "temperature"),
        (chat(stream="yes"), "stream"),
        (chat(stream_options=[]), "stream_options"),
        (chat(top_logprobs=21), "top_logprobs"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(tools={}), "tools"),
        (chat(frugal={"nonsense": 1}), "frugal"),
        (chat(frugal={"cache": "maybe"}), "frugal.cache"),
        (chat(frugal={"cache_ttl": 0}), "frugal.cache_ttl"),
        (chat()[:-1] + b', "seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_is_no_chat_request_is_refused_with_its_reason(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(raw, {}, "req_1")

    assert says in caught.value.message
    assert caught.value.status == 400


def test_deep_nesting_is_refused_whatever_the_interpreter_would_bear() -> None:
    deep: Any = "x"
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]

    with pytest.raises(InvalidRequest, match="nests deeper"):
        parse_chat(chat(metadata=deep), {}, "req_1")


def test_many_brackets_side_by_side_are_not_taken_for_depth() -> None:
    assert parse_chat(chat(tools=[{"a": []}] * 500), {}, "req_1").fields.tools is not None


@pytest.mark.parametrize(
    "name",
    ["api_base", "base_url", "api_key", "proxy", "custom_llm_provider", "extra_headers",
     "organization"],
)  # fmt: skip
def test_a_request_cannot_choose_upstream_or_credential(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(chat(**{name: "http://attacker"}), {}, "req_1")

    assert caught.value.param == name


def test_nul_in_a_text_is_refused_but_its_spelling_is_not() -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        parse_chat(chat(user="a\0b"), {}, "req_1")

    assert parse_chat(chat(user="a\\u0000b"), {}, "req_1").body["user"] == "a\\u0000b"


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_chat(chat(user="\ud800"), {}, "req_1")


def test_our_own_members_are_taken_out_and_unknown_ones_pass() -> None:
    request = parse_chat(
        chat(
            frugal={"cache": "off", "tags": ["nightly"]},
            stream=True,
            stream_options={"include_usage": True, "include_cost": True},
            seed=7,
            vendor_extension={"deep": [1, 2.5, None]},
        ),
        {},
        "req_1",
    )

    assert "frugal" not in request.body
    assert request.body["stream_options"] == {"include_usage": True}
    assert request.body["vendor_extension"] == {"deep": [1, 2.5, None]}
    assert request.include_cost
    assert request.cache == "off"
    assert request.facts(CALLER).tags == {"batch", "nightly"}


@pytest.mark.parametrize(
    ("headers", "mode"),
    [
        ({}, "use"),
        ({b"x-frugal-cache": b"off"}, "off"),
        ({b"x-frugal-cache": b"exact"}, "exact"),
        ({b"cache-control": b"no-store"}, "no-store"),
        ({b"cache-control": b"no-cache"}, "refresh"),
        ({b"cache-control": b"no-cache, no-store"}, "off"),
    ],
)
def test_headers_say_how_the_cache_is_used(headers: dict[bytes, bytes], mode: str) -> None:
    assert parse_chat(chat(), headers, "req_1").cache == mode


def test_a_control_that_is_not_built_yet_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="x-frugal-deadline"):
        parse_chat(chat(), {b"x-frugal-deadline": b"0.01"}, "req_1")


def test_facts_tell_what_rules_ask_for() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    facts = parse_chat(
        chat(
            messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}],
            tools=[{"type": "function", "function": {"name": "f"}}],
            response_format={"type": "json_schema", "json_schema": {}},
            max_completion_tokens=99,
            logprobs=True,
        ),
        {b"x-team": b"blue"},
        "req_1",
    ).facts(CALLER)

    assert (facts.has_images, facts.has_tools, facts.json_schema, facts.logprobs) == (True,) * 4
    assert facts.max_tokens == 99
    assert dict(facts.headers) == {"x-team": "blue"}
    assert (facts.tenant, facts.key) == ("platform", "ci")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(members=st.dictionaries(st.text(max_size=12), JSON, max_size=6), known=JSON)
def test_any_json_is_either_parsed_or_refused_cleanly(members: dict[str, Any], known: Any) -> None:
    raw = json.dumps({"model": "m", "messages": known, **members}).encode("utf-8", "surrogatepass")
    with contextlib.suppress(InvalidRequest):
        request = parse_chat(raw, {}, "req_1")
        assert request.body["model"] == request.model
