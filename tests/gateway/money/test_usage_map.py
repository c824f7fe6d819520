from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money.errors import UsageError
from gateway.money.usage import Usage, total_usage
from gateway.money.usage_map import usage_from_openai

counts = st.integers(0, 10**6)

OPENAI = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 192,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
PLAIN = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}


def test_absent_usage_is_none_and_zero_is_zero():
    assert usage_from_openai(None) is None
    assert usage_from_openai({}) is None
    assert usage_from_openai({"prompt_tokens": 0, "completion_tokens": 0}) == Usage()


def test_plain_usage_has_two_buckets():
    assert usage_from_openai(PLAIN) == Usage(input=12, output=7)


def test_cached_and_reasoning_tokens_are_taken_out_of_their_totals():
    expected = Usage(input=86, cached_input=1920, output=108, reasoning=192)

    assert usage_from_openai(OPENAI) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, Usage(12, output=7)),
        ({"prompt_tokens_details": {"cached_tokens": None}}, Usage(12, output=7)),
        ({"prompt_tokens_details": {"cache_write_tokens": 5}}, Usage(7, cache_write=5, output=7)),
        ({"prompt_tokens_details": {"image_tokens": 4}}, Usage(8, image=4, output=7)),
        ({"prompt_tokens_details": {"audio_tokens": 4}}, Usage(8, audio=4, output=7)),
        ({"completion_tokens_details": {"audio_tokens": 7}}, Usage(12, audio_output=7)),
        ({"prompt_cache_hit_tokens": 10, "prompt_cache_miss_tokens": 2}, Usage(2, 10, output=7)),
        ({"cached_tokens": 10}, Usage(2, 10, output=7)),
    ],
)
def test_details_of_every_provider_land_in_their_bucket(more, expected):
    usage = usage_from_openai({**PLAIN, **more})

    assert usage == expected
    assert usage is not None
    assert usage.total == 19


def test_reasoning_counted_beside_the_completion_is_added_to_it():
    payload = {
        "prompt_tokens": 30,
        "completion_tokens": 10,
        "total_tokens": 140,
        "completion_tokens_details": {"reasoning_tokens": 100},
    }

    assert usage_from_openai(payload) == Usage(input=30, output=10, reasoning=100)


def test_embeddings_report_only_prompt_and_total():
    assert usage_from_openai({"prompt_tokens": 8, "total_tokens": 8}) == Usage(input=8)


@pytest.mark.parametrize(
    "payload",
    [
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 10**12, "completion_tokens": 1},
        {"prompt_tokens": "many", "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -1},
        {"prompt_tokens": 1},
        {"completion_tokens": 1},
        {"prompt_tokens": 8, "total_tokens": 5},
        {**PLAIN, "prompt_tokens_details": {"cached_tokens": 13}},
        {**PLAIN, "prompt_tokens_details": {"cached_tokens": -1}},
        {**PLAIN, "prompt_tokens_details": [1]},
        {**PLAIN, "completion_tokens_details": {"reasoning_tokens": 8}},
        [1, 2],
        "usage",
    ],
)
def test_absurd_counts_are_refused(payload):
    with pytest.raises(UsageError, match="expected"):
        usage_from_openai(payload)


def test_a_long_absurd_value_is_cut_in_the_message():
    with pytest.raises(UsageError) as caught:
        usage_from_openai({"prompt_tokens": "9" * 10_000, "completion_tokens": 1})

    assert len(str(caught.value)) < 150


@given(counts, counts, counts, counts, counts)
def test_buckets_always_add_up_to_the_providers_total(text, cached, audio, answer, reasoning):
    prompt, output = text + cached + audio, answer + reasoning
    usage = usage_from_openai(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )

    assert usage == Usage(text, cached, 0, answer, reasoning, audio)


def test_usages_add_up_bucket_by_bucket():
    one = Usage(1, 2, 3, 4, 5, 6, 7, 0.5, audio_output=8)
    two = Usage(10, 20, 30, 40, 50, 60, 70, 0.25, estimated=True, audio_output=80)

    assert total_usage([one, two]) == Usage(11, 22, 33, 44, 55, 66, 77, 0.75, True, 88)
    assert total_usage([one]) is one
    assert total_usage([]) == Usage()
