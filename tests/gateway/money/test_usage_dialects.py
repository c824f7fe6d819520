"""Usage reports as each provider writes them, and the tokens that its bill counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money.errors import UsageError
from gateway.money.usage import Usage
from gateway.money.usage_dialects import (
    openai_usage,
    tier_of,
    usage_from_anthropic,
    usage_from_gemini,
    usage_from_responses,
)
from gateway.money.usage_map import usage_from_openai

counts = st.integers(0, 10**6)

OPENAI_AUDIO = {
    "prompt_tokens": 350,
    "completion_tokens": 220,
    "total_tokens": 570,
    "prompt_tokens_details": {"cached_tokens": 128, "audio_tokens": 100},
    "completion_tokens_details": {
        "reasoning_tokens": 64,
        "audio_tokens": 50,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
OPENAI_WRITES = {
    "prompt_tokens": 5000,
    "completion_tokens": 10,
    "total_tokens": 5010,
    "prompt_tokens_details": {"cached_tokens": 3000, "cache_write_tokens": 1500},
}
RESPONSES = {
    "input_tokens": 328,
    "input_tokens_details": {"cached_tokens": 128},
    "output_tokens": 52,
    "output_tokens_details": {"reasoning_tokens": 32},
    "total_tokens": 380,
}
ANTHROPIC = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 700,
    "cache_read_input_tokens": 188_086,
    "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 244},
    "output_tokens": 393,
    "output_tokens_details": {"thinking_tokens": 93},
    "service_tier": "standard",
    "server_tool_use": None,
}
GEMINI = {
    "promptTokenCount": 1300,
    "candidatesTokenCount": 90,
    "thoughtsTokenCount": 410,
    "toolUsePromptTokenCount": 20,
    "cachedContentTokenCount": 400,
    "totalTokenCount": 1820,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 700},
        {"modality": "IMAGE", "tokenCount": 258},
        {"modality": "AUDIO", "tokenCount": 342},
    ],
    "cacheTokensDetails": [
        {"modality": "TEXT", "tokenCount": 300},
        {"modality": "AUDIO", "tokenCount": 100},
    ],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 90}],
}
GEMINI_COMPATIBLE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 320}
DEEPSEEK = {
    "prompt_tokens": 2100,
    "completion_tokens": 310,
    "total_tokens": 2410,
    "prompt_tokens_details": {"cached_tokens": 2048},
    "completion_tokens_details": {"reasoning_tokens": 200},
    "prompt_cache_hit_tokens": 2048,
    "prompt_cache_miss_tokens": 52,
}
VLLM = {
    "prompt_tokens": 40,
    "completion_tokens": 9,
    "total_tokens": 49,
    "prompt_tokens_details": None,
}
VLLM_CACHED = {**VLLM, "prompt_tokens_details": {"cached_tokens": 32}}
LLAMACPP = {
    "completion_tokens": 9,
    "prompt_tokens": 40,
    "total_tokens": 49,
    "prompt_tokens_details": {"cached_tokens": 39},
}
AZURE = {
    "prompt_tokens": 1500,
    "completion_tokens": 80,
    "total_tokens": 1580,
    "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 1408},
    "completion_tokens_details": {
        "accepted_prediction_tokens": 0,
        "audio_tokens": 0,
        "reasoning_tokens": 64,
        "rejected_prediction_tokens": 0,
    },
}
OPENROUTER = {
    "prompt_tokens": 1940,
    "completion_tokens": 20,
    "total_tokens": 1960,
    "cost": 0.0123,
    "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 1000, "audio_tokens": 0},
    "cost_details": {"upstream_inference_cost": None},
    "completion_tokens_details": {"reasoning_tokens": 4, "image_tokens": 0},
}
XAI = {
    "prompt_tokens": 32,
    "completion_tokens": 9,
    "total_tokens": 135,
    "prompt_tokens_details": {"text_tokens": 32, "image_tokens": 0, "cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 94},
}


@pytest.mark.parametrize(
    ("report", "expected", "billed"),
    [
        (OPENAI_AUDIO, Usage(122, 128, 0, 106, 64, 100, audio_output=50), 570),
        (OPENAI_WRITES, Usage(500, 3000, 1500, 10), 5010),
        (RESPONSES, Usage(200, 128, 0, 20, 32), 380),
        (
            ANTHROPIC,
            Usage(21, 188_086, 456, 300, 93, cache_write_1h=244),
            21 + 700 + 188_086 + 393,
        ),
        (GEMINI, Usage(420, 400, 0, 90, 410, 242, 258), 1820),
        (GEMINI_COMPATIBLE, Usage(12, 0, 0, 8, 300), 320),
        (DEEPSEEK, Usage(52, 2048, 0, 110, 200), 2410),
        (VLLM, Usage(40, output=9), 49),
        (VLLM_CACHED, Usage(8, 32, output=9), 49),
        (LLAMACPP, Usage(1, 39, output=9), 49),
        (AZURE, Usage(92, 1408, 0, 16, 64), 1580),
        (OPENROUTER, Usage(40, 900, 1000, 16, 4), 1960),
        (XAI, Usage(26, 6, 0, 9, 94), 135),
    ],
)
def test_reports_of_every_provider_fall_into_buckets_that_add_up_to_the_bill(
    report, expected, billed
):
    usage = usage_from_openai(report)

    assert usage == expected
    assert usage.total == billed


def test_an_older_message_without_a_split_wrote_for_the_usual_time():
    told = {"input_tokens": 3, "output_tokens": 4, "cache_creation_input_tokens": 10}

    assert usage_from_anthropic(told) == Usage(3, 0, 10, 4)


def test_a_message_that_tells_only_the_split_wrote_their_sum():
    split = {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 6}
    told = {"input_tokens": 3, "output_tokens": 4, "cache_creation": split}

    assert usage_from_anthropic(told) == Usage(3, 0, 5, 4, cache_write_1h=6)


@pytest.mark.parametrize(
    ("told", "tier"),
    [
        (None, ""),
        ("standard", ""),
        ("default", ""),
        ("auto", ""),
        ("flex", "flex"),
        ("priority", "priority"),
        ("batch", "batch"),
        (5, ""),
    ],
)
def test_a_service_tier_counts_where_it_is_not_the_standard_one(told, tier):
    assert tier_of(told) == tier
    usage = usage_from_anthropic({"input_tokens": 1, "output_tokens": 1, "service_tier": told})
    assert usage.tier == tier


def test_a_fast_message_is_billed_as_such():
    told = {"input_tokens": 1, "output_tokens": 1, "service_tier": "standard", "speed": "fast"}

    assert usage_from_anthropic(told).tier == "fast"


@pytest.mark.parametrize("read", [usage_from_anthropic, usage_from_responses, usage_from_gemini])
def test_no_report_is_none(read):
    assert read({}) is None


@pytest.mark.parametrize(
    "report",
    [
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1},
        {"output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 10**12},
        {"input_tokens": 1, "output_tokens": "many"},
        {**RESPONSES, "input_tokens_details": {"cached_tokens": 400}},
        {**RESPONSES, "output_tokens_details": {"reasoning_tokens": 53}},
        {**RESPONSES, "input_tokens_details": [1]},
        {**ANTHROPIC, "cache_read_input_tokens": -1},
        {**ANTHROPIC, "cache_creation_input_tokens": 1},
        {**ANTHROPIC, "output_tokens_details": {"thinking_tokens": 400}},
        {**GEMINI, "promptTokenCount": 5},
        {**GEMINI, "thoughtsTokenCount": 1.5},
        {**GEMINI, "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 500}]},
        {**GEMINI, "promptTokensDetails": ["TEXT"]},
    ],
)
def test_absurd_reports_are_refused(report):
    with pytest.raises(UsageError, match="expected"):
        usage_from_openai(report)


@given(counts, counts, counts, counts, counts, counts)
def test_a_messages_buckets_always_add_up(fresh, read, short, long, said, thought):
    usage = usage_from_anthropic(
        {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": short + long,
            "cache_creation": {
                "ephemeral_5m_input_tokens": short,
                "ephemeral_1h_input_tokens": long,
            },
            "output_tokens": said + thought,
            "output_tokens_details": {"thinking_tokens": thought},
        }
    )

    assert usage == Usage(fresh, read, short, said, thought, cache_write_1h=long)
    assert usage.total == fresh + read + short + long + said + thought


@given(counts, counts, counts, counts, counts)
def test_geminis_buckets_always_add_up(text, cached, audio, said, thought):
    usage = usage_from_gemini(
        {
            "promptTokenCount": text + cached + audio,
            "cachedContentTokenCount": cached,
            "candidatesTokenCount": said,
            "thoughtsTokenCount": thought,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio}],
        }
    )

    assert usage is None or usage == Usage(text, cached, 0, said, thought, audio)


@given(counts, counts, counts, counts, counts, counts, counts)
def test_usage_told_in_openais_words_keeps_every_token(i, c, w, o, r, a, s):
    usage = Usage(i, c, w, o, r, a, audio_output=s)
    told = openai_usage(usage)

    assert told["total_tokens"] == usage.total
    assert usage_from_openai(told) == usage
