from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from router.learn_table import LearnTable
from router.metrics import auroc
from router.quality.model import QualityModel
from router.quality.state import QualityError
from router.query import Query
from router.state import State

TOPICS = {
    "sums": "add the number {a} to the number {b} and give the total of them",
    "poems": "write a poem about the {a} and the {b} in the style of the sea",
}
NOUNS = ("river", "cloud", "stone", "horse", "lamp", "field",
         "winter", "garden", "paper", "mirror", "candle", "engine")  # fmt: skip


def rows(count, seed=0, models=("small", "large")):
    """The small model is good at sums and bad at poems; the large is good at both."""
    chance = np.random.default_rng(seed)
    for number in range(count):
        topic = ("sums", "poems")[number % 2]
        a, b = chance.choice(NOUNS, 2)
        prompt = f"{TOPICS[topic].format(a=a, b=b)}, please, case {NOUNS[number % 12]} {number}"
        right = {"small": 0.9 if topic == "sums" else 0.1, "large": 0.9, "middle": 0.6}
        for model in models:
            score = float(chance.random() < right[model])
            yield {
                "query_id": f"q{number}",
                "model": model,
                "sample": 0,
                "prompt": prompt,
                "score": score,
                "category": topic,
            }


def read(path, found):
    path.write_text("\n".join(map(json.dumps, found)))
    return LearnTable.from_outcomes(path)


def with_vectors(table, seed=1):
    """Give prompts of a topic vectors that lie close together."""
    chance = np.random.default_rng(seed)
    noise = chance.normal(size=(len(table), 16))
    noise[:, 0] += np.where(np.array(table.categories) == "sums", 6.0, -6.0)
    return table.with_vectors((noise / np.linalg.norm(noise, axis=1)[:, None]).astype(np.float32))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return with_vectors(read(tmp_path_factory.mktemp("t") / "train.jsonl", rows(160)))


@pytest.fixture(scope="module")
def model(table):
    return QualityModel.fit(table)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return with_vectors(read(tmp_path_factory.mktemp("f") / "new.jsonl", rows(80, seed=9)), 2)


@pytest.mark.parametrize("view", ["full", "bare"])
def test_what_a_model_is_bad_at_is_learnt(model, fresh, view):
    unknown = [replace(query, category=None) for query in fresh.queries]
    if view == "bare":
        unknown = [replace(query, vector=None) for query in unknown]
    found = model.estimate(unknown)
    small = found.models.index("small")

    assert auroc(found.quality[:, small], fresh.score[:, small] > 0.5) > 0.85
    assert found.quality[:, 1 - small].mean() == pytest.approx(0.9, abs=0.1)
    assert np.isfinite(found.quality).all()
    assert np.isfinite(found.spread).all()


def test_without_vectors_only_words_are_learnt_from(table, fresh):
    found = QualityModel.fit(table.with_vectors(None))

    assert found.full is None
    assert found.estimate(fresh.queries[:3]).quality.shape == (3, 2)


def test_learners_can_be_left_out(table, fresh):
    found = QualityModel.fit(table, use=("near", "text"), bare=False)

    assert found.full.blend.learners == ("near", "text")
    assert found.estimate([Query("no vector")]).quality.shape == (1, 2)


STRANGE = {
    "empty": Query(""),
    "other script": Query("このテキストは訓練データにない言語で書かれています"),
    "only images": Query("", has_images=True),
    "longer than the window": Query("add the number river " * 4000),
    "half a character": Query("\ud800"),
    "far away": Query("zzz qqq", vector=np.eye(16, dtype=np.float32)[7]),
    "zero vector": Query("zzz qqq", vector=np.zeros(16, np.float32)),
    "other width": Query("zzz qqq", vector=np.ones(3, np.float32)),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_prompt_is_estimated_with_a_wider_spread(model, fresh, name):
    known = model.estimate(fresh.queries[:20])
    strange = model.estimate([STRANGE[name]])

    assert np.isfinite(strange.quality).all()
    assert ((strange.quality > 0) & (strange.quality < 1)).all()
    assert (strange.spread > np.median(known.spread, axis=0)).all()
    assert strange.evidence[0] < np.median(known.evidence)


def test_images_unseen_in_training_make_less_sure(model, fresh):
    query = fresh.queries[0]
    plain, pictured = (model.estimate([replace(query, has_images=seen)]) for seen in (False, True))

    assert (pictured.spread > plain.spread).all()


def test_ten_rows_teach_the_mean_alone_and_say_how_unsure_it_is(tmp_path, model):
    found = QualityModel.fit(read(tmp_path / "few.jsonl", rows(5)))
    estimates = found.estimate([Query("add the number"), Query("write a poem")])

    assert found.bare is None
    assert (estimates.quality[0] == estimates.quality[1]).all()
    assert (estimates.spread > 0.1).all()


def test_one_model_alone_can_be_learnt(tmp_path):
    found = QualityModel.fit(read(tmp_path / "one.jsonl", rows(60, models=("small",))))

    assert found.estimate([Query("add the number")]).models == ("small",)


def test_model_without_a_score_is_refused(tmp_path):
    table = read(tmp_path / "t.jsonl", rows(30))
    score = table.score.copy()
    score[:, 0] = np.nan

    with pytest.raises(QualityError, match=r"found none of \['large'\]"):
        QualityModel.fit(replace(table, score=score))


def test_queries_without_scores_do_no_harm(table, fresh):
    score = table.score.copy()
    score[60:] = np.nan
    found = QualityModel.fit(replace(table, score=score), bare=False)
    small = found.models.index("small")

    assert found.counts.tolist() == [60, 60]
    quality = found.estimate(fresh.queries).quality[:, small]
    assert auroc(quality, fresh.score[:, small] > 0.5) > 0.8


def test_same_prompt_over_and_over_is_no_crash(tmp_path):
    same = [{**row, "prompt": "say it again"} for row in rows(40)]
    found = QualityModel.fit(read(tmp_path / "same.jsonl", same))

    assert np.isfinite(found.estimate([Query("say it again")]).quality).all()


def test_new_model_joins_with_few_probes_and_leaves_the_rest_alone(model, tmp_path):
    probes = with_vectors(read(tmp_path / "p.jsonl", rows(120, seed=4, models=("small",))), 5)
    before = model.estimate(probes.queries)
    grown = model.add_model("copy of small", probes.queries, probes.score[:, 0])
    after = grown.estimate(probes.queries)

    assert after.models == ("large", "small", "copy of small")
    np.testing.assert_array_equal(after.quality[:, :2], before.quality)
    assert auroc(after.quality[:, 2], probes.score[:, 0] > 0.5) > 0.8
    assert (after.spread[:, 2] > after.spread[:, 1]).mean() > 0.9
    assert np.isfinite(grown.estimate([Query("")]).quality).all()


@pytest.mark.parametrize("view", ["full", "bare"])
def test_prompts_of_the_training_are_known_again(model, table, fresh, view):
    def share(queries):
        return model.met_share([q if view == "full" else replace(q, vector=None) for q in queries])

    assert share(table.queries[:40]) == 1.0
    assert share(fresh.queries) < 0.05
    assert share([]) == 0.0


@pytest.mark.parametrize(
    ("name", "scores", "complaint"),
    [
        ("small", [1.0], "known already"),
        ("new", [], "one score a probe"),
        ("new", [1.0, 0.0], "one score a probe"),
        ("new", [1.5], "from 0 to 1"),
        ("new", [float("nan")], "from 0 to 1"),
    ],
)
def test_probes_that_teach_nothing_are_refused(model, name, scores, complaint):
    with pytest.raises(QualityError, match=complaint):
        model.add_model(name, [Query("add the number")], scores)


def test_model_that_has_joined_is_not_replaced_unasked(model, fresh):
    grown = model.add_model("new", fresh.queries, fresh.score[:, 0])
    before = grown.estimate(fresh.queries[:5]).quality

    with pytest.raises(QualityError, match="'new' is known already; train again"):
        grown.add_model("new", fresh.queries, fresh.score[:, 1])
    np.testing.assert_array_equal(grown.estimate(fresh.queries[:5]).quality, before)


def test_estimates_are_the_same_after_a_stay_on_disk(model, fresh):
    grown = model.add_model("new", fresh.queries, fresh.score[:, 0])
    again = QualityModel.from_state(grown.to_state())
    mixed = [*fresh.queries[:5], Query("no vector")]

    for name in ("quality", "spread", "evidence"):
        np.testing.assert_allclose(
            getattr(again.estimate(mixed), name), getattr(grown.estimate(mixed), name), rtol=1e-6
        )


def damaged(state, path, value):
    """Return a state with one thing changed, deep down."""
    first, *rest = path
    if rest:
        return replace(
            state, parts={**state.parts, first: damaged(state.parts[first], rest, value)}
        )
    if isinstance(value, np.ndarray):
        return replace(state, arrays={**state.arrays, first: value})
    return replace(state, values={**state.values, first: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["models"], ["small"]),
        (["models"], ["small", "small"]),
        (["adopted"], ["small"]),
        (["models"], None),
        (["structure"], ["something", "else"]),
        (["width"], -4),
        (["width"], 12),
        (["rates"], np.array([np.nan, 0.5])),
        (["full", "text", "weights"], np.zeros((3, 2))),
        (["full", "dense", "weights"], np.full((2, 2), np.inf)),
        (["full", "near", "scores"], np.zeros((1, 2))),
        (["full", "blend", "learners"], ["guess"] * 5),
        (["full", "blend", "learners"], list("abcde")),
        (["full", "frame", "topics", "sharpness"], "1"),
        (["full", "frame", "clusters", "centres"], np.zeros((4, 3))),
        (["space", "bits"], 3),
    ],
    ids=str,
)
def test_damaged_state_is_refused(model, path, value):
    with pytest.raises(Exception, match=r"quality model|text space") as raised:
        QualityModel.from_state(damaged(model.to_state(), path, value))

    assert type(raised.value).__name__ in ("QualityError", "SurfaceError")


def test_foreign_state_is_refused():
    with pytest.raises(QualityError, match="quality model"):
        QualityModel.from_state(State())
