"""Learning a cascade: of many tiers, those whose drafts save most are judged."""

from __future__ import annotations

import json
from datetime import date

import pytest

from router.costs import Price
from router.learn_table import LearnTable
from router.targets import PriceOfQuality
from router.train import MOST_JUDGED, Task, train
from tests.support.sums import outcomes

POOR = tuple(f"poor-{number}" for number in range(MOST_JUDGED))
TIERS = (*POOR, "able", "dear", "large")
USD = {**dict.fromkeys(POOR, 0.1), "able": 0.4, "dear": 30.0, "large": 5.0}
PRICES = {name: Price(usd, usd, date(2026, 11, 21)) for name, usd in USD.items()}


def rows():
    """Yield answers of a right and a wrong reply to each sum: poor tiers give the wrong one."""
    for row in outcomes(120, seed=3):
        if row["model"] == "large":
            for name in ("able", "dear", "large"):
                yield {**row, "model": name, "prompt_tokens": 40, "completion_tokens": 20}
        else:
            for name in POOR:
                yield {**row, "model": name, "prompt_tokens": 40, "completion_tokens": 20}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    file = tmp_path_factory.mktemp("train") / "many.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows()))
    table = LearnTable.from_outcomes([file], models=TIERS, replies=True)
    trained = train(table, Task(TIERS, "large", PriceOfQuality(0.001), PRICES))
    return {TIERS[place] for place in trained.records.lineup.judged}


def test_an_able_tier_is_judged_though_as_many_as_may_be_are_cheaper(judged):
    assert len(judged) == MOST_JUDGED
    assert "able" in judged


def test_a_tier_that_costs_more_than_it_saves_is_not_judged_before_a_cheap_one(judged):
    assert "dear" not in judged
