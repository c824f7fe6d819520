from __future__ import annotations

from dataclasses import replace

import pytest

from policies.rules import RequestFacts
from router.eligibility import UNLIMITED, why_unable
from router.types import Capabilities

FACTS = RequestFacts(tenant="t", key="k", model="auto", stream=False, input_tokens=100)


@pytest.mark.parametrize(
    ("capabilities", "wanted", "lacking"),
    [
        (Capabilities(context=99), {}, "context"),
        (Capabilities(context=149), {"max_tokens": 50}, "context"),
        (Capabilities(max_output=49), {"max_tokens": 50}, "max_output"),
        (Capabilities(tools=False), {"has_tools": True}, "tools"),
        (Capabilities(vision=False), {"has_images": True}, "vision"),
        (Capabilities(json_schema=False), {"json_schema": True}, "json_schema"),
        (Capabilities(logprobs=False), {"logprobs": True}, "logprobs"),
    ],
)
def test_a_missing_capability_is_named(capabilities, wanted, lacking):
    lack = why_unable(capabilities, replace(FACTS, **wanted))

    assert lack is not None
    assert lack.capability == lacking


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        (Capabilities(context=100), {}),
        (Capabilities(context=150), {"max_tokens": 50}),
        (Capabilities(max_output=50), {"max_tokens": 50}),
        (Capabilities(max_output=1), {}),
        (Capabilities(tools=False, vision=False), {}),
        (Capabilities(tools=True, logprobs=True), {"has_tools": True, "logprobs": True}),
    ],
)
def test_a_model_that_can_is_able(capabilities, wanted):
    assert why_unable(capabilities, replace(FACTS, **wanted)) is None


def test_what_is_unknown_is_taken_as_able():
    demanding = replace(
        FACTS,
        input_tokens=10**9,
        max_tokens=10**6,
        has_tools=True,
        has_images=True,
        json_schema=True,
        logprobs=True,
    )

    assert why_unable(UNLIMITED, demanding) is None


def test_a_context_too_small_says_what_was_needed_and_what_there_is():
    lack = why_unable(Capabilities(context=120), replace(FACTS, max_tokens=50))

    assert str(lack) == "context (needs about 150 tokens, the model has 120)"
