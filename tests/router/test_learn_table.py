from __future__ import annotations

import json

import numpy as np
import pytest

from router.learn_table import LearnTable
from router.types import OutcomesError


def row(query, model, score=1.0, **more):
    return {
        "query_id": query,
        "model": model,
        "prompt": f"please tell me something of {query}",
        "score": score,
        "category": "chat",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "sample": 0,
        "response": f"{model} on {query}",
        **more,
    }


@pytest.fixture
def table(tmp_path):
    def made(rows, name="table.jsonl", **options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
        return LearnTable.from_outcomes(path, **options)

    return made


def many(count, models=("large", "small"), **more):
    names = [f"alpha{'abcdefghij'[i // 10]}{'klmnopqrst'[i % 10]}" for i in range(count)]
    return [row(name, model, **more) for name in names for model in models]


def test_rows_become_matrices_with_gaps(table):
    found = table([row("one", "small", 0.0), row("one", "large"), row("two", "small", None)])

    assert found.models == ("large", "small")
    np.testing.assert_array_equal(found.score, [[1.0, 0.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.prompt_tokens, [[10, 10], [np.nan, 10]])
    assert [query.text for query in found.queries] == [
        "please tell me something of one",
        "please tell me something of two",
    ]
    assert found.categories == ["chat", "chat"]
    assert np.isnan(found.cost_usd).all()


def test_models_may_be_chosen_and_ordered(table):
    rows = [row("one", name) for name in ("a", "b", "c")]

    assert table(rows, models=("c", "a")).models == ("c", "a")
    assert table(rows).of_models(["b"]).score.shape == (1, 1)
    with pytest.raises(OutcomesError, match="found 'z'; it has a, b, c"):
        table(rows).of_models(["z"])


def test_samples_and_repeated_rows_are_averaged_and_counted(table):
    found = table([row("one", "m", 1.0), row("one", "m", 0.0), row("one", "m", 0.5, sample=4)])

    assert found.score.tolist() == [[0.5]]
    assert found.repeated == 1


def test_cell_gives_the_first_reply(table):
    rows = [row("one", "m", sample=1), row("one", "m", response="first"), row("two", "n")]
    found = table(rows, replies=True)

    assert found.cell(0, 0).response == "first"
    assert found.cell(0, 1) is None
    assert found.subset([1]).cell(0, 1).query_id == "two"
    assert table(rows).cell(0, 0).response is None


def test_tables_are_joined_and_keep_their_source(table, tmp_path):
    table([row("one", "m")], name="first.jsonl")
    table([row("one", "m")], name="second.jsonl")
    found = LearnTable.from_outcomes([tmp_path / "first.jsonl", tmp_path / "second.jsonl"])

    assert found.source == ["first", "second"]
    assert found.group[0] == found.group[1]
    assert found.cell(1, 0).query_id == "one"


def test_split_in_columns_or_file_names_is_kept(table):
    found = table([row("one", "m", split="train"), row("two", "m", split="dev")])

    assert found.of_split("dev").ids == ["two"]
    assert len(found.of_split("train", "dev")) == 2


def test_query_in_two_splits_is_refused(table):
    rows = [row("one", "m", split="train"), row("two", "m", split="dev", prompt="Same?")]
    rows.append(row("three", "m", split="train", prompt="same?"))

    with pytest.raises(OutcomesError, match=r"'three' of split 'train' asks the same as 'two'"):
        table(rows)


def test_folds_hold_each_row_once_and_keep_near_duplicates_together(table):
    rows = many(40)
    rows += [row(f"twin{i}", "small", prompt=f"how much are {i} of these") for i in range(8)]
    found = table(rows)
    held = [set(test) for _, test in found.folds(4, seed=3)]

    assert sorted(index for fold in held for index in fold) == list(range(len(found)))
    twins = {i for i, name in enumerate(found.ids) if name.startswith("twin")}
    assert any(twins <= fold for fold in held)
    for train, test in found.folds(4, seed=3):
        assert not set(train) & set(test)


def test_folds_are_the_same_for_a_seed_and_differ_for_another(table):
    found = table(many(60))

    assert (found.fold_of(5, 1) == found.fold_of(5, 1)).all()
    assert (found.fold_of(5, 1) != found.fold_of(5, 2)).any()
    assert np.bincount(found.fold_of(5, 1)).tolist() == [12] * 5
    with pytest.raises(OutcomesError, match="at least 2 folds"):
        found.fold_of(1)


def test_vectors_and_categories_can_be_given_and_taken_away(table):
    found = table(many(3))
    given = found.with_vectors(np.eye(3, dtype=np.float32))

    assert given.queries[2].vector.tolist() == [0.0, 0.0, 1.0]
    assert given.with_vectors(None).queries[0].vector is None
    assert found.without_categories().categories == [None] * 3


def test_messages_count_for_more_than_the_prompt(table):
    found = table([row("one", "m", messages=[{"role": "user", "content": "Really?"}])])

    assert found.queries[0].text == "Really?"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "found none"),
        ([{"query_id": "q", "model": "m", "score": 1.0}], "column 'prompt' is missing"),
        ([{"query_id": "q", "model": "m", "prompt": "p"}], "column 'score' is missing"),
        ([row("q", "m", None)], "expected a score"),
        ([row("q", "m", 1.5)], "expected a number from 0 to 1"),
        ([{"model": "m"}], "column 'query_id' is missing"),
    ],
)
def test_table_that_teaches_nothing_is_refused(table, rows, complaint):
    with pytest.raises(OutcomesError, match=complaint):
        table(rows)
