from __future__ import annotations

import pytest

from bench.pairs import choose_pair
from router.outcomes import Outcomes

PRICES = {
    "a": {"input": 1, "output": 1},
    "b": {"input": 1, "output": 1},
    "c": {"input": 2, "output": 2},
    "dear": {"input": 50, "output": 50},
    "large": {"input": 100, "output": 100},
}
# What each model answers to four questions whose right answers are 0 to 3.
ANSWERS = {
    "a": (0, 1, 9, 9),
    "b": (0, 1, 9, 8),
    "c": (0, 1, 8, 7),
    "dear": (0, 1, 2, 3),
    "large": (0, 1, 2, 3),
}


def table(answers=ANSWERS):
    rows = [
        (f"q{i}", model, f"#### {said}", float(said == i))
        for model, replies in answers.items()
        for i, said in enumerate(replies)
    ]
    query, model, response, score = map(list, zip(*rows, strict=True))
    columns = {"query_id": query, "model": model, "response": response, "score": score}
    tokens = [10] * len(rows)
    return Outcomes(columns | {"prompt_tokens": tokens, "completion_tokens": tokens})


def chosen(max_loss, max_price_share=0.03, answers=ANSWERS):
    return choose_pair(
        table(answers),
        PRICES,
        large="large",
        max_price_share=max_price_share,
        max_loss=max_loss,
    )[0]


def test_the_cheapest_pair_within_the_loss_is_chosen():
    pair = chosen(max_loss=0.3)

    assert (pair.small, pair.second) == ("a", "b")
    assert pair.accuracy == 0.75
    assert pair.escalated == 0.25
    assert pair.cost_share == pytest.approx((1 + 1 + 25) / 100)


def test_a_smaller_loss_takes_a_dearer_pair():
    pair = chosen(max_loss=0)

    assert {pair.small, pair.second} & {"c"}
    assert pair.accuracy == 1


def test_where_no_pair_is_good_enough_the_most_accurate_is_taken():
    answers = {"a": (9, 9, 9, 9), "b": (9, 9, 9, 8), "large": (0, 1, 2, 3)}

    assert chosen(max_loss=0, answers=answers).accuracy == 0.25


def test_models_beyond_the_price_limit_are_no_small_models():
    assert "dear" not in (chosen(max_loss=0).small, chosen(max_loss=0).second)
    with pytest.raises(ValueError, match="fewer than two models"):
        chosen(max_loss=0, max_price_share=0.001)


def test_a_model_that_missed_a_query_is_left_out():
    with pytest.raises(ValueError, match="no complete replies of large"):
        chosen(max_loss=0, answers=ANSWERS | {"large": (0, 1, 2)})
