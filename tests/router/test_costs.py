from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from router.costs import CostError, CostModel, Price
from router.learn_table import LearnTable
from router.query import Query

TODAY = date(2026, 11, 21)
PRICES = {"short": Price(1.0, 2.0, TODAY), "long": Price(10.0, 30.0, TODAY, cached=1.0)}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    chance = np.random.default_rng(0)
    rows = []
    for number in range(200):
        words = int(chance.integers(5, 200))
        kind = ("chat", "essay")[number % 2]
        for model, factor in (("short", 1.0), ("long", 4.0)):
            tokens = int(factor * words * (3 if kind == "essay" else 1) * chance.uniform(0.8, 1.25))
            rows.append(
                {
                    "query_id": f"q{number}", "model": model, "score": 1.0, "category": kind,
                    "prompt": f"{number} " + "word " * words, "prompt_tokens": words + 1,
                    "completion_tokens": tokens, "latency_s": 0.5 + 0.01 * tokens, "sample": 0,
                }
            )  # fmt: skip
    path = tmp_path_factory.mktemp("costs") / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return LearnTable.from_outcomes(path)


@pytest.fixture(scope="module")
def model(table):
    return CostModel.fit(table)


def test_lengths_follow_prompt_model_and_category(model, table):
    mean, high = model.lengths(table.queries)

    error = np.log(mean / table.completion_tokens)
    assert np.abs(error).mean() < 0.25
    assert (high >= mean).all()
    assert 0.82 < (table.completion_tokens <= high).mean() < 0.97


def test_dollars_come_from_tokens_and_prices(model):
    query = Query("word " * 50, category="chat", input_tokens=1000)
    found = model.estimate([query], PRICES)
    at = found.models.index("long")

    assert found.usd[0, at] == pytest.approx((1000 * 10 + found.output_tokens[0, at] * 30) / 1e6)
    assert (found.usd_p90 >= found.usd).all()
    assert found.latency_s[0, at] == pytest.approx(
        0.5 + 0.01 * found.output_tokens[0, at], rel=0.05
    )


def test_cached_input_costs_its_own_price_where_there_is_one(model):
    query = [Query("word", input_tokens=10_000)]
    plain, cached = (model.estimate(query, PRICES, cached_share=share).usd[0] for share in (0, 1))
    long, short = model.models.index("long"), model.models.index("short")

    assert plain[long] - cached[long] == pytest.approx(10_000 * 9 / 1e6)
    assert plain[short] == cached[short]


def test_max_tokens_bounds_the_answer(model):
    found = model.estimate([Query("word " * 100, max_tokens=5)], PRICES)

    assert (found.output_p90 <= 5).all()


def test_unknown_lengths_and_latencies_are_assumed(table):
    nothing = np.full_like(table.completion_tokens, np.nan)
    half = table.completion_tokens.copy()
    half[:, 0] = np.nan
    unknown = CostModel.fit(replace(table, completion_tokens=nothing, latency_s=nothing))
    borrowed = CostModel.fit(replace(table, completion_tokens=half))

    assert unknown.estimate([Query("word")], PRICES).output_tokens[0, 0] > 200
    assert (unknown.estimate([Query("word")], PRICES).latency_s == 0).all()
    mean, _ = borrowed.lengths(table.queries[:3])
    np.testing.assert_allclose(mean[:, 0], mean[:, 1])


@pytest.mark.parametrize("text", ["", "漢字" * 9000, "\ud800", "9" * 5000])
def test_odd_prompts_have_finite_costs(model, text):
    found = model.estimate([Query(text)], PRICES)

    assert np.isfinite(found.usd_p90).all()
    assert (found.usd > 0).all()


def test_missing_price_and_impossible_shares_are_refused(model):
    with pytest.raises(CostError, match="found none for short"):
        model.estimate([Query("x")], {"long": PRICES["long"]})
    with pytest.raises(CostError, match="expected 0 to 1"):
        model.estimate([Query("x")], PRICES, cached_share=1.5)
    with pytest.raises(CostError, match="expected prices from 0"):
        Price(float("nan"), 1.0, TODAY)


def test_model_whose_costs_are_known_does_not_join_again(model, table):
    with pytest.raises(CostError, match="is known already"):
        model.add_model(table.of_models(model.models[:1]))


def test_cost_model_survives_disk_and_refuses_what_is_damaged(model, table):
    state = model.to_state()
    again = CostModel.from_state(state)

    np.testing.assert_array_equal(again.lengths(table.queries)[1], model.lengths(table.queries)[1])
    bad = {**state.arrays, "weights": state.arrays["weights"] * np.nan}
    with pytest.raises(CostError, match="'weights': expected finite"):
        CostModel.from_state(replace(state, arrays=bad))
    with pytest.raises(CostError, match="'models': expected a list"):
        CostModel.from_state(replace(state, values={}))
