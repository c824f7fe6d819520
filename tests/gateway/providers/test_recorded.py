from __future__ import annotations

import json

import pytest

from gateway.errors import ProviderRejected, ProviderTimeout
from gateway.money.usage import Usage
from gateway.providers.recorded import RecordedProvider
from gateway.wire import ProviderCall
from policies.schema import Latency, Model, Timeouts
from router.types import OutcomesError

REPLIES = {"What is 3 + 4?": "It is seven, \n since 3 + 4\tmakes 7 .", "Say nothing": ""}


class Pauses(list):
    """A sleep that only takes note."""

    async def sleep(self, seconds):
        self.append(seconds)


def provider(**options):
    return RecordedProvider.of(REPLIES, clock=lambda: 1_700_000_000.5, **options)


def call(prompt="What is 3 + 4?", *, stream=False, timeouts=None, messages=None, **body):
    messages = messages or [{"role": "user", "content": prompt}]
    return ProviderCall(
        {"model": "recorded", "messages": messages, "stream": stream, **body},
        stream=stream,
        wants_stats=True,
        timeouts=timeouts or Timeouts(),
        request_id="r1",
    )


async def parts_of(recorded, asked):
    return [part async for part in recorded.call(asked)]


def payload(part):
    assert part.data.startswith(b"data: ")
    assert part.data.endswith(b"\n\n")
    return json.loads(part.data[6:])


async def test_a_whole_reply_is_one_part_that_an_openai_client_can_read():
    [part] = await parts_of(provider(), call())

    body = json.loads(part.data)
    reply = REPLIES["What is 3 + 4?"]
    assert body["object"] == "chat.completion"
    assert body["model"] == part.model == "recorded"
    assert body["created"] == 1_700_000_000
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"][0]["message"]["content"] == part.text == reply
    assert body["choices"][0]["finish_reason"] == part.finish_reason == "stop"
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
    assert part.usage == Usage(input=5, output=10)
    assert part.stats is None


async def test_a_stream_comes_in_pieces_that_make_up_the_reply_exactly():
    parts = await parts_of(provider(), call(stream=True))

    chunks = [payload(part) for part in parts]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    reply = REPLIES["What is 3 + 4?"]
    assert len(parts) > 4
    assert "".join(delta.get("content", "") for delta in deltas) == reply
    assert "".join(part.text for part in parts) == reply
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [part.finish_reason for part in parts] == [None] * (len(parts) - 1) + ["stop"]
    assert parts[-1].usage == Usage(input=5, output=10)
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_is_an_event_of_its_own_where_it_was_asked_for():
    asked = call(stream=True, stream_options={"include_usage": True})
    *others, last = await parts_of(provider(), asked)

    assert last.is_usage_only
    assert payload(last)["choices"] == []
    assert payload(last)["usage"]["total_tokens"] == 15
    assert last.usage == Usage(input=5, output=10)
    assert others[-1].finish_reason == "stop"
    assert [part.usage for part in others] == [None] * len(others)


async def test_an_empty_reply_is_played_back_as_such():
    [whole] = await parts_of(provider(), call("Say nothing"))
    streamed = await parts_of(provider(), call("Say nothing", stream=True))

    assert json.loads(whole.data)["choices"][0]["message"]["content"] == ""
    assert [part.finish_reason for part in streamed] == [None, "stop"]


async def test_the_last_user_message_is_what_counts():
    messages = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Say nothing"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "  What is 3 + 4?\n"}]},
    ]

    [part] = await parts_of(provider(), call(messages=messages))

    assert part.text == REPLIES["What is 3 + 4?"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "What is 3 + 5?"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "system", "content": "What is 3 + 4?"}],
    ],
)
async def test_a_prompt_that_was_not_recorded_is_a_clear_404(messages):
    with pytest.raises(ProviderRejected, match="has no reply to") as caught:
        await parts_of(provider(), call(messages=messages))

    assert (caught.value.status, caught.value.code) == (404, "not_recorded")


async def test_a_long_prompt_is_shortened_in_the_message():
    with pytest.raises(ProviderRejected) as caught:
        await parts_of(provider(), call("x" * 10_000))

    assert len(caught.value.message) < 300


async def test_more_than_one_choice_is_refused():
    with pytest.raises(ProviderRejected, match="one reply a prompt") as caught:
        await parts_of(provider(), call(n=2))

    assert (caught.value.status, caught.value.param) == (400, "n")


async def test_the_stated_pace_is_kept_whole_and_streamed():
    latency = Latency(first_token=0.5, tokens_per_second=10)
    whole, streamed = Pauses(), Pauses()

    await parts_of(provider(latency=latency, sleep=whole.sleep), call())
    await parts_of(provider(latency=latency, sleep=streamed.sleep), call(stream=True))

    assert whole == [pytest.approx(1.5)]
    assert streamed[0] == 0.5
    assert sum(streamed[1:]) == pytest.approx(1.0)


async def test_without_stated_rates_nothing_waits():
    pauses = Pauses()

    await parts_of(provider(sleep=pauses.sleep), call())
    await parts_of(provider(sleep=pauses.sleep), call(stream=True))

    assert pauses == []


@pytest.mark.parametrize(
    ("stream", "timeouts", "waited"),
    [
        (False, Timeouts(total=1.0), [1.0]),
        (True, Timeouts(first_token=0.2), [0.2]),
        (True, Timeouts(idle=0.1), [0.5, 0.1]),
    ],
)
async def test_a_pace_beyond_the_deadlines_of_the_route_is_a_timeout(stream, timeouts, waited):
    pauses = Pauses()
    slow = provider(latency=Latency(first_token=0.5, tokens_per_second=10), sleep=pauses.sleep)

    with pytest.raises(ProviderTimeout, match="the route allows"):
        await parts_of(slow, call(stream=stream, timeouts=timeouts))

    assert pauses == waited


def table(tmp_path, **changes):
    rows = [
        {
            "query_id": f"q{i}",
            "model": model,
            "prompt": f" question {i} ",
            "response": f"{model} answers {i}",
            "prompt_tokens": 10 + i,
            "completion_tokens": 20 + i,
        }
        | changes
        for i in range(3)
        for model in ("small", "large")
    ]
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "table.jsonl"


def from_table(path, name="cheap", **model):
    return RecordedProvider.from_model(
        name, Model.model_validate({"provider": "recorded", "outcomes": path} | model)
    )


async def test_a_model_of_a_policy_answers_with_what_it_said_at_the_tokens_it_took(tmp_path):
    recorded = from_table(table(tmp_path), model="small")

    [part] = await parts_of(recorded, call("question 2"))

    assert part.text == "small answers 2"
    assert part.usage == Usage(input=12, output=22)
    assert part.model == "small"
    await recorded.aclose()


async def test_the_key_in_models_is_the_recorded_name_unless_another_is_given(tmp_path):
    [part] = await parts_of(from_table(table(tmp_path), name="large"), call("question 0"))

    assert part.text == "large answers 0"


async def test_token_counts_that_the_table_lacks_are_not_invented(tmp_path):
    recorded = from_table(table(tmp_path, completion_tokens=None), name="large")

    [whole] = await parts_of(recorded, call("question 0"))
    asked = call("question 0", stream=True, stream_options={"include_usage": True})
    streamed = await parts_of(recorded, asked)

    assert whole.usage is None
    assert "usage" not in json.loads(whole.data)
    assert [part.usage for part in streamed] == [None] * len(streamed)


async def test_the_first_sample_is_played_back(tmp_path):
    rows = [
        {
            "query_id": "q",
            "model": "small",
            "sample": sample,
            "prompt": "hi",
            "response": f"reply {sample}",
            "prompt_tokens": 1,
            "completion_tokens": 2,
        }
        for sample in (1, 0)
    ]
    (tmp_path / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))

    [part] = await parts_of(from_table(tmp_path, name="small"), call("hi"))

    assert part.text == "reply 0"


def test_a_model_that_the_table_does_not_have_is_refused_naming_those_it_has(tmp_path):
    with pytest.raises(OutcomesError, match=r"no replies of model 'cheap'; did you mean .*large"):
        from_table(table(tmp_path))


def test_a_table_without_replies_is_refused(tmp_path):
    with pytest.raises(OutcomesError, match="no row with both a prompt and a response"):
        from_table(table(tmp_path, response=None), name="small")


def test_a_recorded_model_needs_a_table():
    with pytest.raises(OutcomesError, match=r"models.cheap: provider recorded needs `outcomes`"):
        from_table(None)
