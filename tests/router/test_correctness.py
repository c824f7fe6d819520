"""A scorer taught on made-up arithmetic, where slips show, models differ and agreement tells."""

from __future__ import annotations

import json

import numpy as np
import pytest

from router.correctness import FAMILIES, NAMES, AnswerScorer, CorrectnessError, fit_scorer
from router.drafts import Drafts, cut_at, read_draft
from router.learn_table import LearnTable
from router.metrics import auroc
from router.reading import read_question
from router.reply import Reply
from router.state import State
from router.types import RouterError

MODELS = ("small", "other", "large")
SKILL = {"small": 0.55, "other": 0.5, "large": 0.9}


def _rows(n, seed=0):
    """Ask for a product plus a number; a slip shows in the working half of the time."""
    chance = np.random.default_rng(seed)
    for at in range(n):
        a, b, c = (int(each) for each in chance.integers(2, 60, 3))
        prompt = f"Case {at}: {a} boxes of {b} nails, and {c} more. How many nails?"
        for model in MODELS:
            right = chance.random() < SKILL[model]
            slip = 0 if right else int(chance.integers(1, 9))
            shown = a * b + (slip if chance.random() < 0.5 else 0)
            text = f"{a} * {b} = {shown}. {shown} + {c} = {a * b + slip + c}.\n"
            yield {
                "query_id": f"q{at}", "model": model, "prompt": prompt, "category": "nails",
                "response": f"{text}#### {a * b + slip + c}", "score": float(right),
                "logprob_q00": -chance.random() * (1.0 if right else 2.0),
            }  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("nails") / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, _rows(160))))
    return LearnTable.from_outcomes(path, models=MODELS, replies=True)


@pytest.fixture(scope="module")
def drafts(table):
    return Drafts.read(table)


@pytest.fixture(scope="module")
def fitted(table, drafts):
    estimates = np.tile([0.55, 0.5, 0.9], (len(table), 1))
    fold = np.arange(len(table)) % 3
    return (*fit_scorer(drafts, table.score, estimates, table.categories, fold), estimates)


def test_right_drafts_are_told_from_wrong_ones_that_were_not_learnt_from(table, drafts, fitted):
    _, held, estimates = fitted
    found = held.quality(drafts, estimates, [0], table.categories)[:, 0]

    assert auroc(found, table.score[:, 0] > 0.5) > 0.75


def test_another_draft_that_agrees_raises_trust_and_one_that_differs_lowers_it(
    table, drafts, fitted
):
    _, held, estimates = fitted
    alone = held.quality(drafts, estimates, [0], table.categories)[:, 0]
    beside = held.quality(drafts, estimates, [0, 2], table.categories)[:, 0]
    agree = drafts.agree[:, 0, 2]

    assert beside[agree == 1].mean() > alone[agree == 1].mean()
    assert beside[agree == 0].mean() < alone[agree == 0].mean()


def test_drafts_are_learnt_from_beside_two_others_as_well(table, drafts):
    # Alone or beside one other, the last model's answers say nothing of whether two agree.
    fold = np.arange(len(table)) % 2
    score = np.repeat(drafts.agree[:, 1, 2] == 1, 3).reshape(-1, 3).astype(float)
    scorer, _ = fit_scorer(drafts, score, None, table.categories, fold, judged=[0, 1, 2])

    assert NAMES.index("others_agree") in scorer.forest.feature[scorer.forest.left >= 0]


def test_a_live_draft_gets_what_its_row_in_the_table_gets(table, drafts, fitted):
    scorer, _, estimates = fitted
    calls = [0, 1, 2]
    expected = scorer.quality(drafts, estimates, calls, table.categories)
    for row in range(5):
        question = read_question(table.queries[row].text)
        seen = [
            read_draft(question, Reply.of_outcome(table.cell(row, m)), m, MODELS[m]) for m in calls
        ]
        found = scorer.judge(seen, estimates[row], "nails")

        assert [each.quality for each in found] == pytest.approx(expected[row])


def test_a_judgement_names_what_weighed(table, fitted):
    scorer, _, estimates = fitted
    question = read_question("3 boxes of 4 nails, and 5 more. How many nails?")
    reply = Reply("3 * 4 = 13. 13 + 5 = 18.\n#### 18", "stop")
    (found,) = scorer.judge([read_draft(question, reply, 0, "small")], estimates[0])
    weighed = {name: added for name, added, _ in found.why}

    assert set(weighed) <= set(NAMES)
    assert any(added < 0 for added in weighed.values())
    assert 0.0 < found.quality < 0.5


@pytest.mark.parametrize("text", ["", "\x00", "{" * 3000, "9" * 9000, "\U0001f600" * 50])
@pytest.mark.parametrize("prompt", ["", "?"])
def test_any_draft_gets_a_probability(fitted, prompt, text):
    scorer, _, _ = fitted
    seen = [read_draft(read_question(prompt), Reply(text), m, MODELS[m]) for m in (0, 1, 2)]

    for each in scorer.judge(seen, None):
        assert 0.0 < each.quality < 1.0


def test_a_scorer_comes_back_from_its_state(table, drafts, fitted):
    scorer, _, estimates = fitted
    again = AnswerScorer.from_state(scorer.to_state())
    ask = (drafts, estimates, [0, 1], table.categories)

    assert np.array_equal(again.quality(*ask), scorer.quality(*ask))


@pytest.mark.parametrize("change", [
    {"values": {}}, {"values": {"models": ["a"], "features": list(NAMES)}},
    {"values": {"models": list(MODELS), "features": ["x"]}}, {"parts": {}},
    {"arrays": {"means": np.array([0.1, np.nan, 0.2])}},
])  # fmt: skip
def test_a_foreign_state_is_refused(fitted, change):
    state = fitted[0].to_state()
    kept = {"values": state.values, "arrays": state.arrays, "parts": state.parts}

    with pytest.raises(RouterError):
        AnswerScorer.from_state(State(**{**kept, **change}))


def test_a_new_model_joins_by_its_mean(fitted):
    scorer, _, _ = fitted
    wider = scorer.add_model("new", 0.7)
    draft = read_draft(read_question("1 + 1?"), Reply("1 + 1 = 2.\n#### 2"), 3, "new")

    assert 0.0 < wider.judge([draft], None)[0].quality < 1.0
    with pytest.raises(CorrectnessError, match="new model"):
        wider.add_model("new", 0.7)


def test_a_draft_that_was_not_given_has_no_quality(table, fitted):
    scorer, _, estimates = fitted
    rows = [row for row in _rows(12) if not (row["query_id"] == "q3" and row["model"] == "small")]
    found = scorer.quality(_read(rows), estimates[:12], [0, 2], ["nails"] * 12)

    assert np.isnan(found[3, 0])
    assert np.isfinite(np.delete(found, 3, axis=0)).all()
    assert np.isfinite(found[3, 1])


def _read(rows):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return Drafts.read(LearnTable.from_outcomes(path, models=MODELS, replies=True))


def test_a_family_left_out_weighs_nothing(table, drafts):
    fold = np.arange(len(table)) % 2
    scorer, _ = fit_scorer(
        drafts, table.score, None, table.categories, fold, without=("maths", "tokens")
    )
    question = read_question("3 boxes of 4 nails")
    (found,) = scorer.judge([read_draft(question, Reply("3 * 4 = 13"), 0, "small")], None)

    assert not {name for name, _, _ in found.why} & {*FAMILIES["maths"], *FAMILIES["tokens"]}


def test_ten_replies_are_enough_for_an_answer_near_the_mean():
    rows = list(_rows(4))[:10]
    drafts = _read(rows)
    score = np.full(drafts.present.shape, np.nan)
    for at, row in enumerate(rows):
        score[at // 3, at % 3] = row["score"]
    scorer, _ = fit_scorer(drafts, score, None, [None] * 4, np.array([0, 1, 0, 1]))
    found = scorer.quality(drafts, None, [0], [None] * 4)

    assert ((found > 0.05) & (found < 0.95)).all()


def test_one_reply_teaches_nothing(drafts, table):
    with pytest.raises(CorrectnessError, match="at least 2"):
        fit_scorer(
            drafts, np.full(table.score.shape, np.nan), None, table.categories,
            np.zeros(len(table), dtype=int),
        )  # fmt: skip


def test_a_scorer_of_beginnings_judges_a_draft_under_way(table):
    cut = Drafts.read(table, shorten=cut_at([12, 20, 500]))
    fold = np.arange(len(table)) % 2
    scorer, _ = fit_scorer(cut, table.score, None, table.categories, fold)
    draft = read_draft(read_question("3 boxes of 4 nails"), Reply("3 * 4 = 13. "), 0, "small")

    assert cut.present.any()
    assert np.nanmax(cut.features[:, :, 0]) <= np.log1p(20) + 1e-6
    assert 0.0 < scorer.judge([draft], None)[0].quality < 1.0


def test_only_the_models_that_are_judged_are_learnt_from(table, drafts):
    fold = np.arange(len(table)) % 2
    score = np.where(np.arange(3) == 2, 1.0 - table.score, table.score)
    ask = (drafts, None, [0], table.categories)
    one, _ = fit_scorer(drafts, table.score, None, table.categories, fold, judged=[0, 1])
    same, _ = fit_scorer(drafts, score, None, table.categories, fold, judged=[0, 1])

    assert np.array_equal(one.quality(*ask), same.quality(*ask))
