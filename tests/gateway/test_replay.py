from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from gateway.replay import fold, unfold

Json = dict[str, Any]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
# Members of others' making: `index` in a list would speak of the stream itself.
extras = st.dictionaries(st.sampled_from(["x_a", "x_b", "x_c"]), values, max_size=2)
token_logprobs = st.fixed_dictionaries(
    {
        "token": texts,
        "logprob": st.floats(-20, 0),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=3),
        "top_logprobs": st.just([]),
    }
)
logprobs = st.none() | st.fixed_dictionaries(
    {
        "content": st.none() | st.lists(token_logprobs, max_size=3),
        "refusal": st.none() | st.lists(token_logprobs, max_size=3),
    }
)
function_calls = st.fixed_dictionaries(
    {
        "id": texts,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": texts, "arguments": texts}),
    }
)
custom_calls = st.fixed_dictionaries(
    {
        "id": texts,
        "type": st.just("custom"),
        "custom": st.fixed_dictionaries({"name": texts, "input": texts}),
    }
)
messages = st.tuples(
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": st.none() | texts,
            "refusal": st.none() | texts,
            "reasoning_content": st.none() | texts,
            "annotations": st.lists(st.fixed_dictionaries({"url": texts}), max_size=2),
            "tool_calls": st.none() | st.lists(function_calls | custom_calls, max_size=3),
            "function_call": st.fixed_dictionaries({"name": texts, "arguments": texts}),
        },
    ),
    extras,
).map(lambda pair: pair[0] | pair[1])


@st.composite
def replies(draw: st.DrawFn) -> Json:
    choices = [
        {"index": index, "message": draw(messages), "finish_reason": draw(st.sampled_from(ENDS))}
        | draw(st.fixed_dictionaries({}, optional={"logprobs": logprobs}))
        | draw(extras)
        for index in range(draw(st.integers(1, 3)))
    ]
    usage = {"prompt_tokens": draw(st.integers(0, 99)), "completion_tokens_details": {"x": 0}}
    optional = {
        "system_fingerprint": st.none() | texts,
        "service_tier": st.none() | texts,
        "usage": st.just(usage),
    }
    head = draw(st.fixed_dictionaries({"id": texts, "model": texts}, optional=optional))
    return {**head, "object": "chat.completion", "created": 7, "choices": choices} | draw(extras)


ENDS = ["stop", "length", "tool_calls", "content_filter", "function_call"]


def body_of(reply: Json) -> bytes:
    return msgspec.json.encode(reply)


def chunks_of(events: Sequence[bytes]) -> list[Json]:
    return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


def event_of(chunk: Json) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def chunk_of(delta: Json, *, index: int = 0, end: str | None = None, **more: Any) -> Json:
    choice = {"index": index, "delta": delta, "finish_reason": end}
    return {"id": "c", "object": "chat.completion.chunk", "created": 7, "model": "m"} | {
        "choices": [choice],
        **more,
    }


def folded(*chunks: Json) -> Json:
    reply: Json = msgspec.json.decode(fold([event_of(chunk) for chunk in chunks]))
    return reply


USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
SPOKEN = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "large-1",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there.", "refusal": None},
            "logprobs": {
                "content": [
                    {"token": "Hello", "logprob": -0.5, "bytes": [72], "top_logprobs": []},
                    {"token": " there.", "logprob": -0.25, "bytes": None, "top_logprobs": []},
                ],
                "refusal": None,
            },
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
CALLING = {
    "id": "chatcmpl-2",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "large-1",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                    },
                    {
                        "id": "call_2",
                        "type": "function",
                        "function": {"name": "time", "arguments": "{}"},
                    },
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": "Which city?", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        },
    ],
    "usage": USAGE,
}


@given(replies())
def test_a_reply_unfolded_and_folded_is_itself(reply: Json) -> None:
    assert msgspec.json.decode(fold(unfold(body_of(reply), include_usage=True))) == reply


@given(replies())
def test_without_usage_all_else_survives(reply: Json) -> None:
    events = unfold(body_of(reply), include_usage=False)

    assert all("usage" not in chunk for chunk in chunks_of(events))
    rest = {name: value for name, value in reply.items() if name != "usage"}
    assert msgspec.json.decode(fold(events)) == rest


@given(replies(), st.data())
def test_keep_alives_and_the_end_mark_change_nothing(reply: Json, data: st.DataObject) -> None:
    events = unfold(body_of(reply), include_usage=True)
    noise = [b": keep-alive\n\n", b"\n", b"data: [DONE]\n\n", b"event: ping\n\n"]
    for odd in noise:
        events.insert(data.draw(st.integers(0, len(events))), odd)

    assert msgspec.json.decode(fold(events)) == reply


def test_a_stream_opens_with_the_role_and_ends_with_the_finish() -> None:
    chunks = chunks_of(unfold(body_of(SPOKEN), include_usage=False))
    told = [chunk["choices"][0] for chunk in chunks]

    assert told[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [c["delta"].get("content") for c in told[1:]] == ["Hello there.", None]
    assert [c["finish_reason"] for c in told] == [None, None, "stop"]
    assert told[-1]["delta"] == {}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["system_fingerprint"] for chunk in chunks} == {"fp_1"}


def test_usage_comes_last_in_an_event_without_choices() -> None:
    *chunks, last = chunks_of(unfold(body_of(SPOKEN), include_usage=True))

    assert last["choices"] == []
    assert last["usage"] == USAGE
    assert all(chunk["usage"] is None for chunk in chunks)


def test_a_reply_without_usage_gets_no_event_about_it() -> None:
    reply = {name: value for name, value in SPOKEN.items() if name != "usage"}

    assert all(chunk["choices"] for chunk in chunks_of(unfold(body_of(reply), include_usage=True)))


def test_tool_calls_are_announced_before_their_arguments() -> None:
    chunks = chunks_of(unfold(body_of(CALLING), include_usage=False))
    deltas = [d for chunk in chunks for d in chunk["choices"][0]["delta"].get("tool_calls", ())]

    assert [d["index"] for d in deltas] == [0, 0, 1, 1]
    assert deltas[0]["function"] == {"name": "weather", "arguments": ""}
    assert deltas[1] == {"index": 0, "function": {"arguments": '{"city":"Ulm"}'}}


def test_reasoning_is_told_before_the_answer() -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    chunks = chunks_of(unfold(body_of(reply), include_usage=False))

    order = [name for chunk in chunks for name in chunk["choices"][0]["delta"]]
    assert order == ["role", "content", "reasoning_content", "content"]


def test_interleaved_choices_are_folded_apart() -> None:
    reply = folded(
        chunk_of({"role": "assistant", "content": ""}, index=1),
        chunk_of({"role": "assistant", "content": ""}),
        chunk_of({"content": "b1"}, index=1),
        chunk_of({"content": "a1"}),
        chunk_of({"content": "b2"}, index=1),
        chunk_of({}, end="stop"),
        chunk_of({}, index=1, end="length"),
    )

    assert [c["message"]["content"] for c in reply["choices"]] == ["a1", "b1b2"]
    assert [c["finish_reason"] for c in reply["choices"]] == ["stop", "length"]


def test_argument_pieces_of_parallel_calls_are_joined_by_index() -> None:
    def piece(index: int, arguments: str, **more: Any) -> Json:
        name = more.pop("name", None)
        function = {"arguments": arguments} | ({"name": name} if name else {})
        return chunk_of({"tool_calls": [{"index": index, "function": function, **more}]})

    reply = folded(
        piece(0, "", id="a", type="function", name="f"),
        piece(1, "", id="b", type="function", name="g"),
        piece(1, '{"y"'),
        piece(0, '{"x"'),
        piece(0, ":1}"),
        piece(1, ":2}"),
        chunk_of({}, end="tool_calls"),
    )

    calls = reply["choices"][0]["message"]["tool_calls"]
    assert calls == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"y":2}'}},
    ]


def test_names_repeated_in_each_delta_stay_names() -> None:
    call = {"index": 0, "id": "a", "type": "function"}
    reply = folded(
        chunk_of({"role": "assistant", "tool_calls": [call | {"function": {"name": "f"}}]}),
        chunk_of({"role": "assistant", "tool_calls": [call | {"function": {"arguments": "{"}}]}),
        chunk_of({"role": "assistant", "tool_calls": [call | {"function": {"arguments": "}"}}]}),
    )

    (told,) = reply["choices"][0]["message"]["tool_calls"]
    assert told == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_whole_calls_without_an_index_stay_apart() -> None:
    def call(name: str) -> Json:
        return {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}

    reply = folded(chunk_of({"tool_calls": [call("f")]}), chunk_of({"tool_calls": [call("g")]}))

    assert reply["choices"][0]["message"]["tool_calls"] == [call("f"), call("g")]


def test_logprobs_of_all_chunks_stand_in_a_row() -> None:
    def token(text: str) -> Json:
        return {"token": text, "logprob": -1.0, "bytes": [1], "top_logprobs": []}

    def spoken(text: str) -> Json:
        chunk = chunk_of({"content": text})
        chunk["choices"][0]["logprobs"] = {"content": [token(text)], "refusal": None}
        return chunk

    reply = folded(chunk_of({"role": "assistant"}), spoken("a"), spoken("b"), spoken("a"))

    said = {"content": [token("a"), token("b"), token("a")], "refusal": None}
    assert reply["choices"][0]["logprobs"] == said


def test_a_first_chunk_that_knows_nothing_yet_does_not_win() -> None:
    blank = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    reply = folded(blank | {"prompt_filter_results": [1]}, chunk_of({"content": "a"}))

    assert (reply["id"], reply["created"], reply["model"]) == ("c", 7, "m")
    assert reply["prompt_filter_results"] == [1]
    assert reply["object"] == "chat.completion"


def test_the_padding_of_a_stream_is_left_out() -> None:
    assert "obfuscation" not in folded(chunk_of({"content": "a"}, obfuscation="xyz"))


def test_events_may_span_lines_and_end_in_crlf() -> None:
    event = b'event: message\r\ndata: {"choices":\r\ndata: [{"delta":{"content":"a"}}]}\r\n\r\n'

    reply = msgspec.json.decode(fold([event]))
    assert reply["choices"][0]["message"] == {"content": "a"}


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "overloaded"}}\n\n',
        b'data: {"error": {"message": "overloaded"}, "choices": []}\n\n',
        b"data: [1]\n\n",
        b'data: {"choices": [\n\n',
        b"data: [DONE]\n\n",
    ],
)
def test_what_is_no_answer_is_never_folded_into_one(event: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|malformed|truncated"):
        fold([event])


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"error": {}}', b'{"choices": null}'])
def test_what_is_no_answer_is_never_unfolded(body: bytes) -> None:
    with pytest.raises(ValueError, match="expected a chat completion"):
        unfold(body, include_usage=False)


odd = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["index", "delta", "message", "content", "tool_calls", "function",
                         "arguments", "logprobs", "finish_reason", "choices", "id"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(odd, max_size=3), st.lists(odd, max_size=3))
def test_choices_of_any_shape_are_told_or_refused_but_break_nothing(
    some: list[Any], more: list[Any]
) -> None:
    with suppress(ValueError):
        fold([event_of({"choices": some}), event_of({"choices": more})])
    with suppress(ValueError):
        unfold(body_of({"choices": some}), include_usage=True)


@contextmanager
def serving(body: bytes, kind: str) -> Iterator[str]:
    """Serve one fixed reply over loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def plain(model: Any) -> Json:
    """Return what a client's object was told, without what it made of it."""
    shown: Json = model.model_dump(exclude={"choices": {"__all__": {"message": {"parsed"}}}})
    return without_nulls(shown)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: without_nulls(v) for k, v in value.items() if v is not None}
        return {k: v for k, v in kept.items() if k != "parsed_arguments"}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("reply", [SPOKEN, CALLING], ids=["spoken", "calling"])
def test_the_openai_client_reads_the_stream_as_the_whole_reply(reply: Json) -> None:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    body = b"".join(unfold(body_of(reply), include_usage=True)) + b"data: [DONE]\n\n"
    with (
        serving(body, "text/event-stream") as url,
        OpenAI(base_url=url, api_key="none") as client,
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hi"}], stream=True
        ) as stream,
    ):
        for chunk in stream:
            state.handle_chunk(chunk)

    told = plain(state.get_final_completion())
    # The client keeps the place of a call in its stream; a whole reply has none.
    for choice in told["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            call.pop("index", None)
    assert told == without_nulls(reply)


@pytest.mark.parametrize("reply", [SPOKEN, CALLING], ids=["spoken", "calling"])
def test_the_openai_client_reads_the_folded_stream(reply: Json) -> None:
    body = fold(unfold(body_of(reply), include_usage=True))
    with (
        serving(body, "application/json") as url,
        OpenAI(base_url=url, api_key="none") as client,
    ):
        completion = client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hi"}]
        )

    assert plain(completion) == without_nulls(reply)
