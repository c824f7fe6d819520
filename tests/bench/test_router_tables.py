"""What the router's tables are made of: who is held out, what a hull keeps, what is drawn."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.router.pairs import held_out
from bench.router.rivals import Way, areas, on_hull
from bench.router.svg import Line, curves
from bench.router.ways import BASELINES
from router.learn_table import LearnTable

CITIES = ("Rome", "Oslo", "Lima", "Cairo")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    place = tmp_path_factory.mktemp("sets")
    for name, prompts in (("one", range(40)), ("two", range(30, 60))):
        rows = (
            {
                "query_id": f"q{number}",
                "model": model,
                "prompt": f"which river flows through {CITIES[number % 4]} in the year {number}",
                "category": CITIES[number % 4],
                "score": float((number % 4 == 0) or (model == "large" and number % 8 != 3)),
            }
            for number in prompts
            for model in ("small", "large")
        )
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = LearnTable.from_outcomes(
        [place / "one.jsonl", place / "two.jsonl"], models=("small", "large")
    )
    vectors = np.random.default_rng(0).normal(size=(len(table), 8))
    vectors[np.arange(len(table)), [CITIES.index(str(c)) for c in table.categories]] += 4
    return table.with_vectors(vectors.astype(np.float32))


@pytest.mark.parametrize("leave", ["fold", "dataset", "category"])
def test_whoever_is_held_out_taught_nothing_nor_did_a_twin(table, leave):
    seen = []
    for rest, out in held_out(table, leave, 0):
        seen += [*out]
        texts = {table.queries[row].text for row in out}
        assert not texts & {table.queries[row].text for row in rest}
    assert sorted(seen) == list(range(len(table)))


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_ranks_with_few_labels_and_with_none_that_decides(table, name):
    rest, out = next(iter(table.folds(5, 0)))
    for rows in (rest, rest[table.score[rest, 0] == table.score[rest, 1]][:4]):
        rank = BASELINES[name](table.subset(rows), table.subset(out))
        assert rank.shape == (len(out),)
        assert np.isfinite(rank).all()


def way(name, quality, usd):
    both = np.full(4, quality), np.full(4, usd)
    return Way(name, both, both)


def test_what_lies_below_the_hull_is_left_out():
    found = [way("a", 0.2, 1.0), way("b", 0.3, 2.0), way("c", 0.8, 3.0), way("d", 0.7, 4.0)]

    assert [each.name for each in on_hull(found)] == ["a", "c"]


def test_area_is_that_of_the_hull_with_every_single_model():
    singles = [way("cheap", 0.0, 0.0), way("dear", 1.0, 1.0)]
    draw = np.zeros((3, 4), np.int64)

    assert areas([way("no better", 0.4, 0.5)], singles, (0.0, 1.0), draw) == pytest.approx(0.5)
    assert areas([way("better", 1.0, 0.5)], singles, (0.0, 1.0), draw) == pytest.approx(0.75)


def test_curves_are_drawn_with_a_legend():
    lines = [Line("ours", [(0.1, 0.2), (0.5, 0.9)]), Line("one <model>", [(0.3, 0.3)])]
    drawn = ElementTree.fromstring(curves(lines, across="cost", up="quality"))

    assert sum(each.tag.endswith("polyline") for each in drawn.iter()) == 2
    assert {"ours", "one <model>", "cost"} <= {each.text for each in drawn.iter()}
