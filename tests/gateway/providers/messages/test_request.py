from __future__ import annotations

import json

import pytest

from gateway.providers.messages.content import Uncarried
from gateway.providers.messages.models import Traits, traits_of
from gateway.providers.messages.request import messages_request

OLD = traits_of("claude-sonnet-4-5")
NEW = traits_of("claude-opus-5-5")
USER = {"role": "user", "content": "hi"}


def asked(traits=OLD, messages=(USER,), **members):
    body = {"model": "claude-x", "messages": list(messages), "stream": False, **members}
    return messages_request(body, traits, None)


def told(*messages):
    made = asked(messages=messages)
    return made.get("system"), made["messages"]


def call(arguments='{"city": "Rome"}', call_id="call_1", name="weather"):
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


# What is said


def test_system_and_developer_messages_become_the_system_prompt_in_order():
    system, turns = told(
        {"role": "system", "content": "one"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "two"}]},
    )

    assert system == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert turns == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def test_images_go_as_their_bytes_or_their_address():
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    address = {
        "type": "image_url",
        "image_url": {"url": "https://x.example/a.png", "detail": "low"},
    }
    paper = {"type": "file", "file": {"file_data": "data:application/pdf;base64,BBBB"}}
    _, (turn,) = told({"role": "user", "content": [data, address, paper]})

    assert [block["source"] for block in turn["content"]] == [
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        {"type": "url", "url": "https://x.example/a.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "BBBB"},
    ]
    assert [block["type"] for block in turn["content"]] == ["image", "image", "document"]


def test_tool_calls_and_their_results_become_blocks_of_two_turns():
    _, turns = told(
        USER,
        {"role": "assistant", "content": "so", "tool_calls": [call(), call("", "a.b:2", "time")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "a.b:2", "content": ""},
        {"role": "user", "content": "well?"},
    )

    assert turns[1]["content"] == [
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "a_b_2", "name": "time", "input": {}},
    ]
    sunny = [{"type": "text", "text": "sunny"}]
    assert turns[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": sunny},
            {"type": "tool_result", "tool_use_id": "a_b_2"},
            {"type": "text", "text": "well?"},
        ],
    }


def test_thoughts_that_a_client_kept_go_back_before_the_words():
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    said = {"role": "assistant", "content": "so", "thinking_blocks": [thought]}
    _, turns = told(USER, said, USER)

    assert turns[1]["content"] == [thought, {"type": "text", "text": "so"}]


def test_empty_words_are_left_out_and_marks_for_the_cache_stay():
    mark = {"type": "ephemeral"}
    parts = [{"type": "text", "text": " "}, {"type": "text", "text": "x", "cache_control": mark}]
    system, turns = told(
        {"role": "system", "content": "s", "cache_control": mark},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": ""},
    )

    assert system == [{"type": "text", "text": "s", "cache_control": mark}]
    assert turns == [
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": mark}]}
    ]


def test_an_answer_to_go_on_from_ends_without_white_space():
    _, turns = told(USER, {"role": "assistant", "content": "It is \n"})

    assert turns[1]["content"] == [{"type": "text", "text": "It is"}]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "function", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        (
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,A"}}
                ],
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
            "messages[0].content[0].file",
        ),
        ({"role": "system", "content": [{"type": "image_url"}]}, "messages[0].content[0].type"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        (
            {"role": "assistant", "tool_calls": [call("{oops")]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [call("[1]")]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(message, where):
    with pytest.raises(Uncarried) as caught:
        told(message)

    assert caught.value.param == where


def test_a_chat_without_a_turn_is_refused():
    with pytest.raises(Uncarried, match="at least one message"):
        told({"role": "system", "content": "only this"})


# Bounds and sampling


@pytest.mark.parametrize(
    ("members", "bound"),
    [
        ({}, OLD.max_output),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
    ],
)
def test_the_bound_is_the_clients_else_the_models(members, bound):
    assert asked(**members)["max_tokens"] == bound


def test_a_declared_bound_goes_before_the_known_one():
    body = {"model": "m", "messages": [USER]}

    assert messages_request(body, OLD, 1000)["max_tokens"] == 1000


@pytest.mark.parametrize(
    ("members", "sent"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_p": 1}, {}),
        ({"top_k": 5}, {"top_k": 5}),
    ],
)
def test_sampling_is_carried_in_the_bounds_of_the_api(members, sent):
    made = asked(**members)

    assert {k: made[k] for k in ("temperature", "top_p", "top_k") if k in made} == sent
    assert asked(NEW, **members).keys().isdisjoint(("temperature", "top_p", "top_k"))


@pytest.mark.parametrize(("stop", "sent"), [("END", ["END"]), (["a", "b"], ["a", "b"])])
def test_stops_are_carried(stop, sent):
    assert asked(stop=stop)["stop_sequences"] == sent


def test_advice_is_left_out_and_neutral_values_are_no_matter():
    made = asked(
        seed=1, presence_penalty=0.5, store=True, n=1, logprobs=False, top_logprobs=0, audio=None
    )

    assert made.keys() == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("logit_bias", {"1": -100}),
        ("modalities", ["text", "audio"]),
        ("functions", []),
        ("web_search_options", {}),
        ("guided_json", {}),
        ("stop", ["\n"]),
        ("tool_choice", {"type": "allowed_tools"}),
        ("response_format", {"type": "json_object"}),
        ("reasoning_effort", "enormous"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(name, value):
    tools = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(Uncarried) as caught:
        asked(**{"tools": tools, name: value})

    assert caught.value.param.startswith(name)


def test_who_asks_is_carried_as_the_user():
    assert asked(user="u1")["metadata"] == {"user_id": "u1"}
    assert asked(metadata={"user_id": "u2", "other": "x"})["metadata"] == {"user_id": "u2"}
    assert asked(service_tier="default")["service_tier"] == "standard_only"
    assert "service_tier" not in asked(service_tier="flex")


# Tools


def test_tools_are_carried_with_their_schemas():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    full = {"name": "f", "description": "d", "parameters": schema, "strict": True}
    tools = [
        {"type": "function", "function": full},
        {"type": "function", "function": {"name": "g"}},
    ]

    assert asked(tools=tools)["tools"] == [
        {"name": "f", "description": "d", "input_schema": schema, "strict": True},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("members", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"type": "tool", "name": "f"},
        ),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_the_choice_of_tools_is_carried(members, choice):
    tools = [{"type": "function", "function": {"name": "f"}}]

    assert asked(tools=tools, **members).get("tool_choice") == choice
    assert "tool_choice" not in asked(**members)


# Form and thinking


def test_a_schema_is_kept_where_the_model_can():
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    made = asked(response_format=wanted)

    assert made["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}}
    }
    with pytest.raises(Uncarried, match="schema"):
        asked(traits_of("claude-3-7-sonnet-latest"), response_format=wanted)


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "level"),
    [
        ("claude-opus-5-5", "high", {"type": "adaptive"}, "high"),
        ("claude-opus-5-5", "minimal", {"type": "adaptive"}, "low"),
        ("claude-opus-5-5", "none", None, "low"),
        ("claude-sonnet-5", "none", {"type": "disabled"}, "low"),
        ("claude-fable-5", "none", None, "low"),
        ("claude-opus-4-6", "xhigh", {"type": "adaptive"}, "high"),
        ("claude-opus-4-5", "high", {"type": "enabled", "budget_tokens": 16_384}, "high"),
        ("claude-haiku-4-5", "low", {"type": "enabled", "budget_tokens": 2_048}, None),
        ("claude-haiku-4-5", "none", None, None),
        ("claude-3-5-haiku-latest", "high", None, None),
    ],
)
def test_effort_is_asked_in_the_words_of_the_model(model, effort, thinking, level):
    made = asked(traits_of(model), reasoning_effort=effort, temperature=0.2)
    thinks = thinking is not None and thinking["type"] != "disabled"

    assert made.get("thinking") == thinking
    assert made.get("output_config", {}).get("effort") == level
    assert ("temperature" in made) is (traits_of(model).samples and not thinks)


def test_a_budget_leaves_half_of_the_bound_to_the_answer():
    made = asked(reasoning_effort="high", max_tokens=4096)

    assert made["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert "thinking" not in asked(reasoning_effort="high", max_tokens=2000)


def test_a_model_with_a_budget_does_not_think_where_the_api_would_refuse():
    tools = [{"type": "function", "function": {"name": "f"}}]
    result = [
        USER,
        {"role": "assistant", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]

    assert "thinking" not in asked(reasoning_effort="low", tools=tools, tool_choice="required")
    assert "thinking" not in asked(reasoning_effort="low", tools=tools, messages=result)


def test_thinking_in_the_apis_own_words_is_passed_on():
    own = {"type": "enabled", "budget_tokens": 3000}

    assert asked(thinking=own, reasoning_effort="low")["thinking"] == own


# What is known of models


@pytest.mark.parametrize(
    ("model", "max_output", "least_cached", "schema"),
    [
        ("claude-opus-4-5-20251101", 64_000, 4_096, True),
        ("claude-opus-4-20250514", 32_000, 1_024, False),
        ("claude-opus-4-1", 32_000, 1_024, False),
        ("claude-3-5-haiku-20241022", 8_192, 2_048, False),
        ("claude-3-haiku-20240307", 4_096, 2_048, False),
        ("claude-3-7-sonnet-latest", 64_000, 1_024, False),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000, 1_024, True),
        ("claude-haiku-5-5", 128_000, 512, True),
        ("claude-sonnet-5", 128_000, 1_024, True),
        ("our-own", 8_192, 1_024, None),
    ],
)
def test_a_models_name_tells_what_it_takes(model, max_output, least_cached, schema):
    known = traits_of(model)

    assert (known.max_output, known.least_cached) == (max_output, least_cached)
    assert known.has_json_schema is schema


def test_a_request_is_plain_json():
    made = asked(Traits(), messages=[{"role": "system", "content": "s"}, USER], stream=True)

    assert json.loads(json.dumps(made)) == made
    assert made["stream"] is True
