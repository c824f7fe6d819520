from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bench.cache import Row, compared, main
from bench.cache_fit import fit_calibration, seen
from bench.cache_pairs import question_pairs
from bench.cache_replay import HIT, WRONG, Replay
from bench.cache_rules import Cosine, DistanceEvaluator, Shipped, Verified
from bench.cache_streams import Stream, lookups
from bench.cache_vectors import Vectors
from cache.semantic.calibration import Calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.guards import AxisGuards
from cache.semantic.types import Candidate

WIDTH = 24


def stream(intents: int = 8, each: int = 12, noise: float = 0.35, seed: int = 0) -> Stream:
    """Return questions around a direction for each intent, in mixed order."""
    chance = np.random.default_rng(seed)
    names = [f"intent-{number % intents}" for number in range(intents * each)]
    chance.shuffle(names)
    rows = np.array([np.eye(WIDTH)[int(n[7:])] for n in names])
    rows += noise * chance.normal(size=rows.shape) / np.sqrt(WIDTH)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = [f"please explain {name} for me" for name in names]
    return Stream("made", texts, names, rows.astype(np.float32))


def of_text(*vectors: list[float], answers: list[str]) -> Stream:
    rows = np.array(vectors, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Stream("made", [f"question {n}" for n in answers], answers, rows)


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    met = [
        lookups(stream(seed=seed, noise=1.2), knows_answers=knows, guards=None, kept=1.0)
        for seed in (1, 2, 3)
        for knows in (True, False)
    ]
    return fit_calibration({"made": met})


def test_bench_without_data_tells_of_paraphrases_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--domain", "shop", "--limit", "60", "--json", "--cache", str(tmp_path)]) == 0

    told = json.loads(capsys.readouterr().out)
    assert {row["stream"] for row in told["rows"]} == {"shop"}
    assert {row["way"].split(",")[0] for row in told["rows"]} == {
        "cosine", "GPTCache's distance", "per entry", "ours",
    }  # fmt: skip
    assert len(told["axes"]) == 2


def test_ours_is_compared_with_cosine_on_the_same_stream() -> None:
    def row(stream: str, way: str, hits: float) -> Row:
        return Row(stream, way, [0.0, hits, 0.0, 0.0], [], 0.0, [], 0.0)

    told = compared([
        row("a", "cosine", 0.1), row("a", "ours, other set", 0.25), row("a", "per entry", 0.9),
        row("a unseen", "cosine", 0.2), row("a unseen", "ours, unseen", 0.3),
    ])  # fmt: skip

    assert told == [
        "a: ours, other set 25.0%, cosine 10.0%, 2.5 times",
        "a unseen: ours, unseen 30.0%, cosine 20.0%, 1.5 times",
    ]


def test_replay_tells_right_hits_from_wrong_ones() -> None:
    made = of_text([1, 0], [1, 0.1], [1, 0.2], [0, 1], answers=["a", "a", "b", "c"])

    found = Replay(made).run(Cosine(0.9))

    assert found.outcomes.tolist() == [0, HIT, WRONG, 0]
    assert found.hit_rate == 0.5
    assert found.error == 0.5
    assert found.error_of_queries == 0.25


def test_a_wrong_hit_that_is_kept_misleads_those_after_it() -> None:
    made = of_text([1, 0], [1, 0.5], [1, 1.1], answers=["a", "b", "b"])

    bought = Replay(made).run(Cosine(0.85))
    kept = Replay(made).run(Cosine(0.85, keeps_hit=True))

    assert bought.outcomes.tolist() == [0, WRONG, 0]
    assert kept.outcomes.tolist() == [0, WRONG, WRONG]


def test_less_allowed_error_serves_no_more(fitted: Calibration) -> None:
    replay = Replay(stream(seed=9))
    lenient, strict = (
        replay.run(Shipped(fitted, lambda asked, stored: False, max_error, learns=False))
        for max_error in (0.4, 0.02)
    )

    assert lenient.hit_rate >= strict.hit_rate


def test_fitted_score_rises_with_similarity_and_with_agreement(fitted: Calibration) -> None:
    def score(*near: tuple[float, str]) -> float:
        candidates = [Candidate("q", 0, s, str(n), answer_key=k) for n, (s, k) in enumerate(near)]
        return CalibratedDecider(fitted).decide("q", candidates, 0.01).probability

    assert score((0.95, "")) > score((0.85, ""))
    assert score((0.9, "a"), (0.9, "a"), (0.5, "b")) > score((0.9, "a"), (0.89, "b"), (0.4, "b"))


def test_audits_reach_the_decider_and_the_caller(fitted: Calibration) -> None:
    rule = Shipped(fitted, lambda asked, stored: False, max_error=0.5)
    heard: list[bool] = []

    found = Replay(stream(seed=5)).run(
        rule, audited=lambda entry_id, was_right: heard.append(was_right), share=1.0
    )

    assert len(heard) == int((found.outcomes > 0).sum()) > 0
    assert heard.count(False) == int((found.outcomes == WRONG).sum())


def test_the_rival_evaluator_serves_from_its_threshold_on() -> None:
    rule = DistanceEvaluator()

    assert rule.serve("asked", [Candidate("stored", 0, 0.61, "a")]) == 0
    assert rule.serve("asked", [Candidate("stored", 0, 0.59, "a")]) is None
    assert rule.serve("asked", []) is None


def test_per_entry_rule_serves_only_with_labels_of_its_own() -> None:
    rule = Verified(0.3)
    near = [Candidate("stored", 0, 0.95, "a")]
    assert rule.serve("asked", near) is None

    for _ in range(60):
        rule.met(near, [True], None)

    assert rule.serve("asked", near) == 0


def test_pairs_are_many_and_distinct_on_every_axis() -> None:
    pairs = question_pairs()
    counts = Counter((pair.axis, pair.is_same) for pair in pairs)

    assert sum(not pair.is_same for pair in pairs) >= 1000
    assert min(counts.values()) >= 30
    assert len(set(pairs)) == len(pairs)
    assert pairs == question_pairs()


def test_guards_stop_nine_of_ten_near_misses_and_spare_the_controls() -> None:
    guards = AxisGuards()
    refused: Counter[tuple[str, bool]] = Counter()
    counted: Counter[tuple[str, bool]] = Counter()
    for pair in question_pairs(40):
        counted[pair.axis, pair.is_same] += 1
        refused[pair.axis, pair.is_same] += guards.refuse(pair.asked, pair.stored) is not None

    for (axis, is_same), count in counted.items():
        share = refused[axis, is_same] / count
        assert share <= 0.05 if is_same else share >= 0.9, (axis, is_same, share)


def test_unseen_intents_are_the_same_whoever_asks() -> None:
    answers = [f"intent-{number}" for number in range(400)]

    kept = seen(answers, 0.4)

    assert kept == seen(list(reversed(answers)), 0.4)
    assert 0.5 < len(kept) / len(answers) < 0.7
    assert seen(answers, 0.0) == set(answers)


def test_vectors_are_read_back_instead_of_computed_again(tmp_path: Path) -> None:
    class Counting(Vectors):
        computed = 0

        def _embedded(self, name: str, texts: object) -> np.ndarray:  # type: ignore[type-arg]
            self.computed += 1
            return np.eye(2, dtype=np.float32)

    first, second = Counting(tmp_path), Counting(tmp_path)
    rows = first.of("two", ["a", "b"])

    assert np.array_equal(rows, second.of("two", ["a", "b"]))
    assert (first.computed, second.computed) == (1, 0)
