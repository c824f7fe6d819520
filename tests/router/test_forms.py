"""What a logged request asked of the form of its reply, as training sees it."""

from __future__ import annotations

import json

import pytest

from router.drafts import Drafts
from router.forms import calls_in, is_list, is_object, wanted_of
from router.learn_table import LearnTable
from router.outcomes import read_outcomes
from router.reply import NAMES
from router.types import OutcomesError
from router.validators import ToolCall

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]


def read(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return LearnTable.from_outcomes(path, replies=True)


def row(number, **known):
    return {"query_id": f"q{number}", "model": "m", "prompt": f"p{number}", "score": 1.0, **known}


def feature(drafts, at, name):
    return float(drafts.features[at, 0, NAMES.index(name)])


@pytest.mark.parametrize("as_text", [False, True])
def test_schemas_and_tools_of_a_table_are_checked_in_training(tmp_path, as_text):
    def cell(value):
        return json.dumps(value) if as_text else value

    call = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]
    wrong = [{"name": "add", "arguments": {"a": "one"}}]
    table = read(
        tmp_path / "t.jsonl",
        row(1, response='{"a": 1}', response_format=cell(FORM)),
        row(2, response='{"a": "one"}', response_format=cell(FORM)),
        row(3, tools=cell(TOOLS), tool_calls=cell(call)),
        row(4, response="", tools=cell(TOOLS), tool_calls=cell(wrong)),
        row(5, response="plain"),
    )
    drafts = Drafts.read(table)

    assert [feature(drafts, at, "schema_held") for at in (0, 1)] == [1.0, 0.0]
    assert [feature(drafts, at, "arguments_held") for at in (2, 3)] == [1.0, 0.0]
    assert drafts.present.all()
    assert [query.has_tools for query in table.queries] == [False, False, True, True, False]
    assert [query.json_schema for query in table.queries] == [True, True, False, False, False]


def test_cells_of_another_shape_are_refused_with_their_row(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row(1, tools={"name": "add"})))
    with pytest.raises(OutcomesError, match="row 1: tools: expected a list of tools"):
        read_outcomes(path)
    path.write_text(json.dumps(row(1, response_format="json")))
    with pytest.raises(OutcomesError, match="response_format: expected a JSON object"):
        read_outcomes(path)


def test_cells_may_be_of_anything_and_say_so():
    assert not is_object("[1]")
    assert not is_list('{"a": 1}')
    assert not is_list("[1]")
    assert wanted_of(None, None).schema is None
    assert calls_in(None) == ()
    assert calls_in("[{]") == ()
    assert calls_in([{"name": "f"}, {"function": 3}]) == (ToolCall("f", "{}"),)
