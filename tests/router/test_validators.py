from __future__ import annotations

import json
import math

import pytest

from router.validators import NAMES, ToolCall, Wanted, fault_of, holds, validator_features

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["a", "b", 1]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "next": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["name"]}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("value", [
    {"name": "x"}, {"name": "x", "age": 3}, {"name": "x", "age": 3.0}, {"name": "x", "kind": 1},
    {"name": "x", "tags": ["a"]}, {"name": "x", "next": None}, {"name": "x", "next": {"name": 1}},
])  # fmt: skip
def test_a_value_that_keeps_to_the_schema_holds(value):
    assert holds(value, PERSON)


@pytest.mark.parametrize("value", [
    {}, [], None, {"name": ""}, {"name": 1}, {"name": "x", "age": "3"}, {"name": "x", "age": -1},
    {"name": "x", "age": True}, {"name": "x", "age": 151}, {"name": "x", "kind": True},
    {"name": "x", "tags": ["a", "b", "c"]}, {"name": "x", "tags": [1]}, {"name": "x", "more": 1},
    {"name": "x", "next": {}},
])  # fmt: skip
def test_a_value_that_breaks_the_schema_does_not_hold(value):
    assert not holds(value, PERSON)


@pytest.mark.parametrize("schema", [
    {"required": 3}, {"minItems": "x"}, {"type": "elephant"}, {"unknown": 1}, {"anyOf": 5}, True,
    [],
    {"properties": {"a": 7}},
])  # fmt: skip
def test_a_schema_that_is_none_is_no_fault_of_the_reply(schema):
    assert holds([1], schema)
    assert holds({"a": 1}, schema)


def test_a_schema_deeper_than_the_stack_is_no_error():
    schema, value = {}, 1
    for _ in range(500):
        schema, value = {"items": schema}, [value]

    assert holds(value, schema)


def _features(text="", calls=(), **request):
    wanted = Wanted.of_request(request)
    return dict(zip(NAMES, validator_features(text, calls, wanted), strict=True))


SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}


@pytest.mark.parametrize(("text", "valid", "held"), [
    ('{"name": "x"}', 1.0, 1.0), ('{"name": 1}', 1.0, 0.0),
    ('```json\n{"name": "x"}\n```', 0.5, 1.0),
    ('{"name": ', 0.0, 0.0), ("[" * 5000, 0.0, 0.0),
])  # fmt: skip
def test_a_reply_is_held_against_the_schema_that_was_asked_for(text, valid, held):
    found = _features(text, response_format=SCHEMA_FORMAT)

    assert (found["json_wanted"], found["json_valid"], found["schema_held"]) == (1.0, valid, held)


def test_json_without_a_schema_must_only_be_json():
    found = _features("{}", response_format={"type": "json_object"})

    assert found["json_valid"] == 1.0
    assert math.isnan(found["schema_held"])


@pytest.mark.parametrize("request_body", [
    {}, {"response_format": None}, {"response_format": "json"},
    {"response_format": {"type": "text"}},
    {"tools": [None, {}, {"function": 3}]},
])  # fmt: skip
def test_what_was_not_asked_for_is_not_judged(request_body):
    found = _features("no JSON", **request_body)

    assert found["json_wanted"] == 0.0
    assert math.isnan(found["arguments_held"])


TOOLS = [{"type": "function", "function": {"name": "find", "parameters": PERSON}}]


@pytest.mark.parametrize(("name", "arguments", "known", "held"), [
    ("find", {"name": "x"}, 1.0, 1.0), ("find", {"age": 3}, 1.0, 0.0), ("lose", {}, 0.0, 0.0),
])  # fmt: skip
def test_calls_are_held_against_the_tools_that_were_offered(name, arguments, known, held):
    found = _features(calls=[ToolCall(name, json.dumps(arguments))], tools=TOOLS)

    assert (found["tools_called"], found["tools_known"], found["arguments_held"]) == (
        1,
        known,
        held,
    )


@pytest.mark.parametrize("arguments", ["{", "3", "null"])
def test_arguments_that_are_no_object_do_not_hold(arguments):
    assert _features(calls=[ToolCall("find", arguments)], tools=TOOLS)["arguments_held"] == 0.0


@pytest.mark.parametrize(("text", "blocks", "parses"), [
    ("```python\nx = 1\n```", 1.0, 1.0), ("```python\nx = (\n```\n```py\ny = 2\n```", 2.0, 0.5),
    ("```python\nx = '\\d'\n```", 1.0, 1.0),
])  # fmt: skip
def test_code_must_parse(text, blocks, parses):
    found = _features(text)

    assert (found["code_blocks"], found["code_parses"]) == (blocks, parses)


@pytest.mark.parametrize(
    ("text", "calls", "told"),
    [
        ('{"name": "x"}', [], None),
        ('{"name": ""}', [], "breaks its schema"),
        ("Sure!", [], "is no JSON"),
        ('```json\n{"name": "x"}\n```', [], "is no JSON"),
        ("", [ToolCall("put", '{"name": "x"}')], None),
        ("", [ToolCall("put", '{"name": 1}')], "a tool's arguments break their schema"),
        ("", [ToolCall("put", '{"name"')], "a tool's arguments break their schema"),
        ("", [ToolCall("get", "{}")], "calls a tool that was not offered"),
    ],
)
def test_a_broken_form_is_told_in_words(text, calls, told):
    assert fault_of(text, calls, Wanted(True, PERSON, {"put": PERSON})) == told


def test_where_no_form_was_asked_for_none_is_broken():
    assert fault_of("Sure!", [ToolCall("get", "{")], Wanted()) is None
