from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager

import pytest

from gateway.errors import (
    ProviderProtocolError,
    ProviderRejected,
    ProviderUnavailable,
)
from gateway.money.usage import Usage
from gateway.providers.local import LocalProvider
from policies.schema import Model
from router.types import TokenStats
from tests.support.chat import (
    USAGE,
    call,
    chunk_event,
    collect,
    completion,
    delta,
    payload,
    usage_event,
)
from tests.support.scripted_upstream import (
    RST,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
    stream,
)

MODEL = Model(provider="local", checkpoint="demo/tiny")


@asynccontextmanager
async def engine(tmp_path, *scripts):
    """Run a scripted engine, and the provider that speaks to it."""
    path = tmp_path / "engine.sock"
    async with ScriptedUpstream(scripts, uds=path) as upstream:
        provider = LocalProvider.from_model("tiny", MODEL, socket=path)
        try:
            yield upstream, provider
        finally:
            await provider.aclose()


def numbers(*logprobs):
    return {
        "logprobs": list(logprobs),
        "margins": [1.5] * len(logprobs),
        "entropies": [0.25] * len(logprobs),
    }


def compact(members):
    return json.dumps(members, separators=(",", ":")).encode()


def token(text, finish=None, **frugal):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return chunk_event(choices=[choice], **({"frugal": frugal} if frugal else {}))


async def test_whole_reply_gives_raw_statistics_and_busy_time(tmp_path):
    reply = completion(
        frugal={"token_stats": numbers(-0.1, -0.2), "compute_s": 0.5, "queue_s": 0.1}
    )
    async with engine(tmp_path, [answer(reply)]) as (upstream, provider):
        (part,) = await collect(provider, call(wants_stats=True))

        assert upstream.requests[0].json["frugal"] == {"token_stats": True}
        assert upstream.requests[0].path == "/v1/chat/completions"
        assert part.stats == TokenStats((-0.1, -0.2), (1.5, 1.5), (0.25, 0.25), "raw")
        assert part.usage == Usage(input=9, output=3, compute_s=0.5)
        assert payload(part) == completion()


@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({"model": "other"}, "tiny"),
        ({"adapters": "a"}, "tiny (base)"),
        ({"adapters": "a", "model": "law"}, "law"),
    ],
)
async def test_the_engine_is_asked_for_the_name_that_it_knows(tmp_path, members, asked):
    path, model = tmp_path / "engine.sock", MODEL.model_copy(update=members)
    async with ScriptedUpstream([[answer(completion())]], uds=path) as upstream:
        provider = LocalProvider.from_model("tiny", model, socket=path)
        await collect(provider, call())
        await provider.aclose()

        assert upstream.requests[0].json["model"] == asked


async def test_streamed_reply_gives_statistics_by_part(tmp_path):
    events = [
        delta("", role="assistant"),
        token("a", token_stats=numbers(-0.1)),
        token("b", token_stats=numbers(-0.2, -0.3)),
        token("", "stop", token_stats=numbers(-0.4), compute_s=0.5, queue_s=0.0),
        usage_event(),
    ]
    async with engine(tmp_path, stream(*events)) as (upstream, provider):
        parts = await collect(provider, call(stream=True, wants_stats=True))

        assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
        assert [part.stats and part.stats.logprobs for part in parts] == [
            None,
            (-0.1,),
            (-0.2, -0.3),
            (-0.4,),
            None,
        ]
        assert parts[-1].usage == Usage(input=9, output=3, compute_s=0.5)
        assert parts[-1].is_usage_only
        assert all("frugal" not in payload(part) for part in parts)
        assert [payload(part)["choices"] for part in parts[1:2]] == [
            [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]
        ]


async def test_busy_time_beside_the_usage_counts_too(tmp_path):
    last = chunk_event(choices=[], usage=USAGE, frugal={"compute_s": 0.75})
    async with engine(tmp_path, stream(token("a", "stop"), last)) as (_, provider):
        parts = await collect(provider, call(stream=True))

        assert parts[-1].usage.compute_s == 0.75
        assert "frugal" not in payload(parts[-1])


async def test_busy_time_of_several_choices_is_added_up(tmp_path):
    def end(index):
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": "stop"}
        return chunk_event(choices=[choice], frugal={"compute_s": 0.25, "queue_s": 0.0})

    script = stream(end(0), end(1), usage_event())
    async with engine(tmp_path, script) as (_, provider):
        parts = await collect(provider, call(stream=True, n=2))

        assert parts[-1].usage.compute_s == 0.5


async def test_member_is_cut_off_without_rewriting_the_rest(tmp_path):
    text = 'says ","frugal":{"compute_s":1}} itself'
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": USAGE}
    raw = compact({**body, "frugal": {"compute_s": 0.5}})
    async with engine(tmp_path, [answer(raw)]) as (_, provider):
        (part,) = await collect(provider, call())

        assert part.data == compact(body)
        assert part.text == text


async def test_member_is_found_wherever_it_stands(tmp_path):
    raw = compact({"frugal": {"compute_s": 0.5}, **completion()})
    async with engine(tmp_path, [answer(raw)]) as (_, provider):
        (part,) = await collect(provider, call())

        assert payload(part) == completion()
        assert part.usage.compute_s == 0.5


async def test_statistics_that_were_not_wanted_are_not_asked_for(tmp_path):
    async with engine(tmp_path, [answer(completion())]) as (upstream, provider):
        (part,) = await collect(provider, call())

        assert upstream.requests[0].json["frugal"] == {"token_stats": False}
        assert part.stats is None


async def test_member_of_another_shape_is_broken(tmp_path):
    reply = completion(frugal={"token_stats": {"logprobs": "x"}})
    async with engine(tmp_path, [answer(reply)]) as (_, provider):
        with pytest.raises(ProviderProtocolError, match="statistics"):
            await collect(provider, call())


async def test_prompt_beyond_the_context_is_rejected_with_its_code(tmp_path):
    error = {"error": {"message": "9 tokens", "code": "context_length_exceeded", "param": None}}
    script = [answer(error, status="400 Bad Request")]
    async with engine(tmp_path, script) as (_, provider):
        with pytest.raises(ProviderRejected, match="9 tokens") as caught:
            await collect(provider, call())

        assert caught.value.code == "context_length_exceeded"


async def test_full_queue_is_unavailable_and_says_when_to_come_back(tmp_path):
    script = [answer(b"{}", status="503 Busy", headers={"retry-after": "1"})]
    async with engine(tmp_path, script) as (_, provider):
        with pytest.raises(ProviderUnavailable) as caught:
            await collect(provider, call())

        assert caught.value.retry_after == "1"


async def test_engine_that_is_down_fails_at_once_and_serves_again_once_it_is_up(tmp_path):
    provider = LocalProvider.from_model("tiny", MODEL, socket=tmp_path / "engine.sock")
    with pytest.raises(ProviderUnavailable):
        await collect(provider, call())
    async with ScriptedUpstream([[answer(completion())]], uds=tmp_path / "engine.sock"):
        (part,) = await collect(provider, call())
        await provider.aclose()

    assert part.text == "hi"


async def test_engine_that_dies_amid_its_answer_is_unavailable(tmp_path):
    hold = Hold()
    script = [STREAM_HEAD, chunk(token("a")), hold, RST]
    async with (
        engine(tmp_path, script) as (_, provider),
        aclosing(provider.call(call(stream=True))) as parts,
    ):
        await anext(parts)
        hold.release()
        with pytest.raises((ProviderUnavailable, ProviderProtocolError)):
            await anext(parts)


async def test_closing_the_call_leaves_the_engine(tmp_path):
    script = [STREAM_HEAD, chunk(token("a")), Hold()]
    async with engine(tmp_path, script) as (upstream, provider):
        async with aclosing(provider.call(call(stream=True))) as parts:
            await anext(parts)

        await upstream.until_gone()


def test_provider_needs_its_engines_socket():
    with pytest.raises(ValueError, match=r"models\.tiny"):
        LocalProvider.from_model("tiny", MODEL)
