from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.cascade import Confidence
from policies.kinds import CONFIDENCES, resolve
from router.confidence import AgreementScorer, LogprobScorer, never_good_enough, trust
from router.types import Draft, TokenStats

# A busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SURE, UNSURE = math.log(0.95), math.log(0.3)


def confidence(**values):
    return Confidence.model_validate(values)


def draft(text="17", logprobs=None, **others):
    stats = None if logprobs is None else TokenStats(tuple(logprobs))
    return Draft(
        **{"model": "small", "text": text, "finish_reason": "stop", "stats": stats} | others
    )


def says(*texts, asked=None, **others):
    """Return an `Ask` under which each model gives the next of these texts; None fails."""
    replies = iter(texts)

    async def ask(model):
        if asked is not None:
            asked.append(model)
        text = next(replies)
        return None if text is None else draft(text, model=model, **others)

    return ask


nobody = says()


async def test_a_draft_of_likely_tokens_is_accepted():
    verdict = await LogprobScorer(confidence(threshold=0.8)).judge(draft("17", [SURE] * 3), nobody)

    assert verdict.accepted
    assert verdict.confidence == pytest.approx(0.95)


async def test_one_unlikely_token_rejects_a_draft_at_quantile_zero():
    scorer = LogprobScorer(confidence(threshold=0.8, quantile=0))

    verdict = await scorer.judge(draft("17", [SURE, UNSURE, SURE]), nobody)

    assert not verdict.accepted
    assert verdict.confidence == pytest.approx(0.3)
    assert verdict.reason == "confidence below 0.8"


async def test_a_higher_quantile_forgives_a_few_unlikely_tokens():
    scorer = LogprobScorer(confidence(threshold=0.8, quantile=0.5))

    assert (await scorer.judge(draft("17", [SURE, UNSURE, SURE]), nobody)).accepted


@pytest.mark.parametrize("logprobs", [None, []])
async def test_a_draft_without_token_statistics_is_rejected_but_may_be_served_at_need(logprobs):
    verdict = await LogprobScorer(confidence(threshold=0)).judge(draft("17", logprobs), nobody)

    assert not verdict.accepted
    assert verdict.confidence is None
    assert verdict.servable


@pytest.mark.parametrize(
    ("held", "reason", "servable"),
    [
        (draft("", [SURE]), "empty", False),
        (draft(" \n", [SURE]), "empty", False),
        (draft("17", [SURE], finish_reason="length"), "truncated", True),
        (draft("17", [SURE], finish_reason="content_filter"), "filtered", True),
        (draft("17", [SURE], finish_reason=None), "unfinished", False),
        (draft("I'm sorry, but I can't help with that.", [SURE]), "refused", True),
        (draft("I cannot assist with this request.", [SURE]), "refused", True),
        (draft("Unfortunately, I am unable to answer that.", [SURE]), "refused", True),
        (draft("As an AI language model, I cannot provide advice.", [SURE]), "refused", True),
        (draft("Sorry, I won\u2019t create that.", [SURE]), "refused", True),
    ],
)
async def test_no_confidence_saves_a_draft_that_is_no_answer(held, reason, servable):
    agreeing = AgreementScorer(confidence(kind="agreement", **{"with": "second"}))

    for scorer in (LogprobScorer(confidence(threshold=0)), agreeing):
        verdict = await scorer.judge(held, nobody)

        assert not verdict.accepted
        assert (verdict.reason, verdict.servable) == (reason, servable)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot stress enough that water boils at 100 °C.",
        "Sorry to hear that! Here is what to do: rest.",
        "The lawyer said: I cannot answer that.",
        "I am happy to help.",
        "No",
    ],
)
def test_an_answer_that_only_sounds_like_a_refusal_is_none(text):
    assert never_good_enough(draft(text)) is None


def test_tool_calls_need_no_text():
    assert never_good_enough(draft("", finish_reason="tool_calls", tool_calls=1)) is None


def test_watching_begins_after_the_stated_number_of_tokens():
    scorer = LogprobScorer(confidence(early={"after_tokens": 3, "threshold": 0.5}))

    assert scorer.watches
    assert scorer.watch(TokenStats((UNSURE, UNSURE)))
    assert not scorer.watch(TokenStats((UNSURE, UNSURE, UNSURE)))
    assert scorer.watch(TokenStats((SURE, SURE, SURE)))


def test_without_early_rejection_every_draft_comes_to_its_end():
    scorer = LogprobScorer(confidence())

    assert not scorer.watches
    assert scorer.watch(TokenStats((-50.0,) * 100))


@unhurried
@given(st.lists(st.floats(max_value=0, allow_nan=False), min_size=1), st.floats(0, 1))
def test_trust_is_the_probability_of_a_token_that_was_seen(logprobs, quantile):
    found = trust(logprobs, quantile)

    assert 0 <= found <= 1
    assert found in [math.exp(value) for value in logprobs]
    assert trust(logprobs, 0) <= found <= trust(logprobs, 1)


@pytest.mark.parametrize("odd", [[math.nan], [-0.1, math.nan], [math.nan, -0.1], [-math.inf]])
def test_what_is_no_probability_is_not_trusted(odd):
    assert trust(odd, 0) == 0
    assert trust(odd, 0.5) == 0 or -0.1 in odd


def test_rounding_above_one_is_taken_as_certain():
    assert trust([1e-7], 0) == 1


def agreement(threshold=0.8):
    return AgreementScorer(confidence(kind="agreement", threshold=threshold, **{"with": "second"}))


async def test_a_second_model_that_says_the_same_makes_a_draft_trusted():
    asked = []

    verdict = await agreement().judge(draft("It is 3 + 4 = 7."), says("#### 7", asked=asked))

    assert verdict.accepted
    assert verdict.confidence == 1
    assert asked == ["second"]


async def test_a_second_model_that_says_otherwise_rejects_a_draft():
    verdict = await agreement().judge(draft("#### 7"), says("#### 8"))

    assert not verdict.accepted
    assert verdict.confidence == 0
    assert verdict.reason == "second says otherwise"


async def test_a_second_model_that_fails_rejects_a_draft_and_says_so():
    verdict = await agreement(threshold=0).judge(draft("#### 7"), says(None))

    assert not verdict.accepted
    assert verdict.confidence is None
    assert verdict.reason == "second gave no second opinion"


@pytest.mark.parametrize(
    ("text", "others"),
    [("", {}), ("7", {"finish_reason": "length"}), ("I can't help with that.", {})],
)
async def test_a_second_opinion_that_is_no_answer_counts_for_nothing(text, others):
    verdict = await agreement(threshold=0).judge(draft("7"), says(text, **others))

    assert not verdict.accepted
    assert verdict.reason.startswith("the reply of second is no use")


async def test_the_second_model_is_not_paid_for_a_draft_that_is_lost_anyway():
    asked = []
    for lost in (draft(""), draft("", finish_reason="tool_calls", tool_calls=1)):
        verdict = await agreement().judge(lost, says("7", asked=asked))

        assert not verdict.accepted
    assert asked == []


async def test_agreement_needs_no_token_statistics_and_never_watches():
    scorer = agreement()

    assert not scorer.needs_stats
    assert not scorer.watches
    assert scorer.watch(TokenStats((-50.0,) * 100))


def test_agreement_without_a_second_model_is_refused():
    with pytest.raises(ValueError, match="needs a second model"):
        AgreementScorer(confidence(kind="agreement"))


@pytest.mark.parametrize("kind", ["logprob", "agreement", "router.confidence:LogprobScorer"])
def test_every_kind_is_built_from_the_same_section_of_a_policy(kind):
    scorer = resolve(CONFIDENCES, kind)(confidence(kind=kind, **{"with": "second"}))

    assert callable(scorer.judge)
