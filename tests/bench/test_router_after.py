"""Drafts of a pair, judged after generating: by the router's own parts, that never saw them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.router.after import Drafted, Pair
from bench.router.crossfit import estimated
from router.learn_table import LearnTable

PAIR = Pair(("sums",), ("small", "other", "large"), "small", "other", "large", ("small", "other"))


def rows():
    chance = np.random.default_rng(0)
    for number in range(80):
        one, two = (int(each) for each in chance.integers(10, 99, 2))
        is_long = number % 2 == 0
        text = "Add with care, step by step: " if is_long else "Add "
        for model, share in (("small", 0.3), ("other", 0.5), ("large", 0.95)):
            right = chance.random() < (share if is_long else 0.95)
            said = one + two + (0 if right else int(chance.integers(1, 9)))
            yield {
                "query_id": f"q{number}", "model": model, "prompt": f"{text}{one} and {two}.",
                "response": f"{one} + {two} = {said}. The answer is {said}.",
                "score": float(right), "category": "long" if is_long else "short",
            }  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    place = tmp_path_factory.mktemp("sums")
    every = list(rows())
    for name, part in (("one", every[: len(every) // 2]), ("two", every[len(every) // 2 :])):
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    files = [place / "one.jsonl", place / "two.jsonl"]
    return LearnTable.from_outcomes(files, models=PAIR.models, replies=True)


def test_estimates_are_learnt_from_rows_outside_and_told_no_category(table):
    inside, outside = np.arange(40), np.arange(40, 60)
    score = table.score.copy()
    score[outside] = 1.0 - score[outside]
    queries = [
        replace(query, category="other" if row in outside else query.category)
        for row, query in enumerate(table.queries)
    ]
    found, fold = estimated(table, inside, outside)
    again, _ = estimated(replace(table, queries=queries, score=score), inside, outside)

    assert np.isfinite(found[:60]).all()
    assert set(fold) == {0, 1, 2}
    assert np.array_equal(found, again, equal_nan=True)


def test_drafts_whose_sums_are_wrong_are_found_alone_and_beside_another(table):
    before, alone, beside = Drafted("sums", PAIR, table).rows(None, "dataset", (), 0)

    assert [before.judged, alone.judged, beside.judged] == [
        "before generating", "alone", "beside other",
    ]  # fmt: skip
    assert min(alone.auroc.value, beside.auroc.value) > 0.95 > before.auroc.value
    assert alone.by_gain.value > before.by_gain.value


def test_without_labels_drafts_are_told_apart_by_their_signs(table):
    (row,) = Drafted("sums", PAIR, table).rows(0, "fold", (), 0)

    assert row.judged == "alone"
    assert row.labels == 0
    assert row.auroc.value > 0.5
