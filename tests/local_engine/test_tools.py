"""Tool calls: read exactly or not at all, whole and in pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_engine.engine import Engine
from local_engine.errors import InvalidRequest, Unsupported
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.openai_reply import ReplyWriter
from local_engine.openai_request import Ask, Served, parse_chat
from local_engine.template import ChatTemplate
from local_engine.tools import Style, Toolbox, ToolReader, style_of
from local_engine.types import Finish, Token
from tests.local_engine.support import run

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
TEMPLATES: dict[Style, str] = {
    "hermes": "{% if tools %}{{ tools | tojson }} in <tool_call></tool_call>{% endif %}",
    "llama": "{% if tools %}{{ tools | tojson }} after <|python_tag|>{% endif %}",
    "mistral": "{% if tools %}{{ tools | tojson }} as [TOOL_CALLS]{% endif %}",
}
TURNS = (
    "{% for m in messages %}<|{{ 'user' if m.role == 'tool' else m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}<|end|>"
    "{% endfor %}<|assistant|>"
)
GOOD: dict[Style, str] = {
    "hermes": '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>',
    "llama": '{"name": "weather", "parameters": {"city": "Ulm"}}',
    "mistral": '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Ulm"}}]',
}
TWO: dict[Style, str] = {
    "hermes": GOOD["hermes"] + '\n<tool_call>{"name": "now", "arguments": {}}</tool_call>',
    "llama": GOOD["llama"] + '; {"name": "now", "parameters": {}}',
    "mistral": GOOD["mistral"][:-1] + ', {"name": "now", "arguments": {}}]',
}
STYLES: tuple[Style, ...] = ("hermes", "llama", "mistral")


def box(style: Style, *, is_parallel: bool = True) -> Toolbox:
    return Toolbox(style, {"weather": SCHEMA, "now": {}}, is_parallel)


def read(style: Style, text: str, **rest: Any) -> tuple[str, ToolReader]:
    reader = box(style, **rest).reader()
    return reader.push(text, is_final=True), reader


def calls(reader: ToolReader) -> list[tuple[str, Any]]:
    return [(c.name, json.loads(c.arguments)) for c in reader.calls]


@pytest.mark.parametrize("style", STYLES)
def test_a_template_tells_its_style(style: Style) -> None:
    assert style_of(TEMPLATES[style]) == style
    assert style_of("{{ messages }}") is None
    assert style_of("{{ tools }}") is None


@pytest.mark.parametrize("style", STYLES)
def test_calls_are_read(style: Style) -> None:
    content, one = read(style, GOOD[style])
    rest, two = read(style, TWO[style])

    assert content == rest == ""
    assert calls(one) == [("weather", {"city": "Ulm"})]
    assert calls(two) == [("weather", {"city": "Ulm"}), ("now", {})]
    assert not one.faults
    assert len({c.id for c in two.calls}) == 2


@pytest.mark.parametrize("style", STYLES)
@given(cuts=st.lists(st.integers(0, 160), max_size=6))
def test_pieces_read_as_the_whole_does(style: Style, cuts: list[int]) -> None:
    before = "" if style == "llama" else "Let me <tool see [TOOL. "
    for text in (before + TWO[style], "just <to [words] {", GOOD[style][:-7]):
        whole, wanted = read(style, text)
        reader = box(style).reader()
        marks = [0, *sorted(min(c, len(text)) for c in cuts), len(text)]
        pieces = [reader.push(text[a:b], is_final=False) for a, b in itertools.pairwise(marks)]
        pieces.append(reader.push("", is_final=True))

        assert "".join(pieces) == whole
        assert calls(reader) == calls(wanted)
        assert reader.faults == wanted.faults


def test_content_is_released_before_the_call_is_there() -> None:
    reader = box("hermes").reader()

    assert reader.push("Let me see. <tool", is_final=False) == "Let me see. "
    assert reader.push("_bar", is_final=False) == "<tool_bar"
    assert reader.push(GOOD["hermes"], is_final=False) == ""
    assert len(reader.calls) == 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("found", "instead", "why"),
    [
        ('"weather"', '"wether"', "no tool named"),
        ('"weather"', "7", "no tool named"),
        ('{"city": "Ulm"}', '"Ulm"', "must be an object"),
        ('{"city": "Ulm"}', "{}", "lacks the argument 'city'"),
        ('{"city": "Ulm"}', '{"city": 1, "x": 2}', "has no argument 'x'"),
        ('{"city": "Ulm"}', '{"city": 1, "city": 2}', "stands twice"),
        ('{"city": "Ulm"}', '{"city": NaN}', "not JSON"),
        ('{"city": "Ulm"}', '{"city": "Ulm"}, "more": 1', "nothing else"),
        ('"Ulm"}', '"Ulm"', "not JSON"),
    ],
)
def test_what_is_no_call_is_reported_and_stays_content(
    style: Style, found: str, instead: str, why: str
) -> None:
    text = GOOD[style].replace(found, instead)
    content, reader = read(style, text)

    assert not reader.calls
    assert [why in fault for fault in reader.faults] == [True]
    assert instead.split('"')[0] in content


def test_calls_that_do_not_end_or_begin_are_reported() -> None:
    _, unended = read("hermes", GOOD["hermes"].removesuffix("</tool_call>"))
    _, unbegun = read("hermes", GOOD["hermes"].removeprefix("<tool_call>"))

    assert unended.faults == ["a call was begun and not ended"]
    assert unbegun.faults == ["a call was ended and not begun"]


def test_a_second_call_is_a_fault_where_one_was_asked_for() -> None:
    _, reader = read("hermes", TWO["hermes"], is_parallel=False)

    assert (len(reader.calls), len(reader.faults)) == (1, 1)


@pytest.mark.parametrize("text", ['{"answer": 42}', "{broken", "Hello {name}", ""])
def test_json_that_names_no_tool_is_content_for_llama(text: str) -> None:
    content, reader = read("llama", text)

    assert (content, reader.calls, reader.faults) == (text, [], [])


def test_mistrals_newer_form_is_read() -> None:
    text = '[TOOL_CALLS]weather[ARGS]{"city": "Ulm"}[TOOL_CALLS]now{}'

    assert calls(read("mistral", text)[1]) == [("weather", {"city": "Ulm"}), ("now", {})]


@pytest.fixture(scope="module")
def served(loaded: Callable[[str], LoadedModel]) -> Callable[[Style], Served]:
    def make(style: Style) -> Served:
        template = ChatTemplate(TEMPLATES[style] + TURNS, {})
        model = replace(loaded("llama"), template=template)
        return Served("tiny", model, 512, Grammars(model.tokenizer, model.end_ids, 320))

    return make


def ask(served: Served, **fields: Any) -> Ask:
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, **fields}
    return parse_chat(body, served, "id", datetime(2026, 11, 20))


def reply(served: Served, asked: Ask, tokens: list[Token], finish: Finish) -> dict[str, Any]:
    writer = ReplyWriter(asked, served.model.tokenizer, id="id", model="tiny", created=0)
    writer.choices[0].add(tokens, finish)
    return writer.whole()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("choice", ["required", {"function": {"name": "now"}}])
async def test_a_call_that_must_be_made_is_made(
    served: Callable[[Style], Served], style: Style, choice: Any
) -> None:
    pytest.importorskip("llguidance", reason="forcing calls needs llguidance")
    here = served(style)
    asked = ask(here, tool_choice=choice, seed=3, max_tokens=200, parallel_tool_calls=False)
    bias = {t: 20.0 for c in '"}]' for t in here.model.tokenizer.encode(c, add_special=False)}
    (request,) = asked.requests
    request = replace(request, sampling=replace(request.sampling, logit_bias=bias))
    async with Engine(here.model) as engine:
        tokens, finish = await run(engine, request)
    whole = reply(here, asked, tokens, finish)["choices"][0]

    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    names = [c["function"]["name"] for c in whole["message"]["tool_calls"]]
    assert names in ([["now"]] if choice != "required" else [["now"], ["weather"]])


def test_offered_tools_and_earlier_calls_reach_the_template(
    served: Callable[[Style], Served],
) -> None:
    here = served("hermes")
    call = {"id": "c", "type": "function", "function": {"name": "weather"}}
    call["function"]["arguments"] = '{"city": "Ulm<|end|>"}'  # type: ignore[index]
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sun"},
    ]
    prompt = ask(here, messages=messages).requests[0].prompt
    text = b"".join(here.model.tokenizer.bytes_of(t) for t in prompt).decode()

    assert '"name": "weather"' in text
    assert text.endswith("hiUlm<|end|>sun")
    assert prompt.count(2) == 3


def test_a_stream_tells_of_calls_and_of_malformed_ones(served: Callable[[Style], Served]) -> None:
    here = served("hermes")
    asked = ask(here, stream=True)
    for text, reason in ((GOOD["hermes"], "tool_calls"), ("<tool_call>x", "malformed_tool_call")):
        writer = ReplyWriter(asked, here.model.tokenizer, id="id", model="tiny", created=0)
        token = Token(9, text, text.encode(), -0.1, 0.1, 1.0)
        data = writer.chunks(0, [token], None) + writer.chunks(
            0, [], Finish("stop", 1, 1, 0.0, 0.0)
        )
        events = [json.loads(line[6:]) for line in data.splitlines() if line]
        deltas = [e["choices"][0]["delta"] for e in events]
        told = [c for d in deltas for c in d.get("tool_calls", [])]

        assert events[-1]["choices"][0]["finish_reason"] == reason
        assert [c["index"] for c in told] == ([0] if reason == "tool_calls" else [])
        assert ("malformed_tool_calls" in events[-1]["frugal"]) == (not told)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, None),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]},
            "tools[0].function.parameters",
        ),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "else"}}}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "a", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0]",
        ),
    ],
)
def test_wrong_tools_are_named(
    served: Callable[[Style], Served], fields: dict[str, Any], param: str | None
) -> None:
    if param is None:
        assert ask(served("hermes"), **fields).tools is None
        return
    with pytest.raises(InvalidRequest) as caught:
        ask(served("hermes"), **fields)

    assert caught.value.param == param


def test_a_template_without_tools_refuses_them(loaded: Callable[[str], LoadedModel]) -> None:
    model = loaded("llama")
    plain = Served("tiny", model, 512, Grammars(model.tokenizer, model.end_ids, 320))

    with pytest.raises(Unsupported, match="knows no tools"):
        ask(plain)
    assert ask(plain, tool_choice="none").tools is None
