from __future__ import annotations

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.outcomes import COLUMNS, Outcome, read_outcomes
from router.types import OutcomesError

ROWS = [
    {
        "query_id": query,
        "model": model,
        "prompt": f"what is {query}?",
        "response": f"{model} says {query}",
        "score": 1.0,
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "unknown_column": "left alone",
    }
    for query in ("q1", "q2")
    for model in ("small", "large")
]


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


@pytest.fixture(params=["table.parquet", "table.jsonl"])
def file(request, tmp_path):
    return tmp_path / request.param


def without(name):
    return [{k: v for k, v in row.items() if k != name} for row in ROWS]


def changed(**values):
    """Return the rows with these values in the third."""
    return [row | values if i == 2 else row for i, row in enumerate(ROWS)]


def test_a_table_is_read_by_column_and_by_row(file):
    table = read_outcomes(write(file, ROWS))

    assert len(table) == 4
    assert table.column("model") == ["small", "large"] * 2
    assert next(iter(table)) == Outcome(
        query_id="q1",
        model="small",
        split="table",
        prompt="what is q1?",
        response="small says q1",
        score=1.0,
        prompt_tokens=5,
        completion_tokens=7,
    )


def test_only_the_columns_and_models_asked_for_are_read(file):
    table = read_outcomes(write(file, ROWS), columns=["score"], models=["large"])

    assert set(table.columns) == {"query_id", "model", "sample", "score"}
    assert [row.model for row in table] == ["large", "large"]
    with pytest.raises(KeyError):
        table.column("response")


def test_a_folder_is_read_file_by_file_and_each_is_a_split(tmp_path):
    write(tmp_path / "train.parquet", ROWS[:2])
    write(tmp_path / "dev.jsonl", ROWS[2:])
    (tmp_path / "README.md").write_text("not a table")

    assert read_outcomes(tmp_path).column("split") == ["dev", "dev", "train", "train"]
    assert read_outcomes(tmp_path, split="train").column("query_id") == ["q1", "q1"]
    assert read_outcomes(tmp_path, columns=["split"]).column("split")[0] == "dev"


def test_a_column_that_only_some_files_have_is_empty_for_the_others(tmp_path):
    write(tmp_path / "a.jsonl", [row | {"category": "sums"} for row in ROWS[:2]])
    write(tmp_path / "b.jsonl", ROWS[2:])
    write(tmp_path / "c.jsonl", [ROWS[0] | {"query_id": "q3", "latency_s": 0.5}])
    table = read_outcomes(tmp_path)

    assert table.column("category") == ["sums", "sums", None, None, None]
    assert table.column("latency_s") == [None] * 4 + [0.5]


def test_scores_that_are_not_known_are_none(file):
    assert read_outcomes(write(file, changed(score=None))).column("score") == [1, 1, None, 1]


def test_several_replies_of_a_model_are_told_apart_by_their_sample(file):
    rows = [ROWS[0] | {"sample": 0}, ROWS[0] | {"sample": 1}]

    assert read_outcomes(write(file, rows)).column("sample") == [0, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"score": 1.5}, "score: expected a number from 0 to 1"),
        ({"score": -0.1}, "score: expected a number from 0 to 1"),
        ({"completion_tokens": -1}, "completion_tokens: expected a whole number from 0"),
        ({"prompt": None, "query_id": ""}, "query_id: expected a text that is not empty"),
        ({"model": None}, "model: expected a text that is not empty"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_row(file, values, expected):
    with pytest.raises(OutcomesError, match=rf"{file.name}, row 3: {expected}.*; found"):
        read_outcomes(write(file, changed(**values)))


@pytest.mark.parametrize(
    "values",
    [
        {"score": True},
        {"score": float("nan")},
        {"response": 5},
        {"cost_usd": -1.0},
        {"logprob_q05": 0.5},
        {"propensity": 2},
        {"messages": "not a list"},
        {"prompt_tokens": 10**12},
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path, values):
    rows = json.dumps(ROWS[0] | values)
    (tmp_path / "table.jsonl").write_text(rows.replace("NaN", "1e999"))

    with pytest.raises(OutcomesError, match="row 1"):
        read_outcomes(tmp_path / "table.jsonl")


def test_an_error_names_the_row_of_the_file_also_where_models_are_left_out(file):
    rows = [row | {"score": 2.0} if i == 3 else row for i, row in enumerate(ROWS)]

    with pytest.raises(OutcomesError, match="row 4"):
        read_outcomes(write(file, rows), models=["large"])
    assert len(read_outcomes(file, models=["small"])) == 2


def test_a_reply_that_occurs_twice_is_refused_with_both_places(file):
    with pytest.raises(OutcomesError, match=r"row 5: query 'q1', model 'small'.*row 1\)"):
        read_outcomes(write(file, [*ROWS, ROWS[0]]))


@pytest.mark.parametrize("name", ["query_id", "model"])
def test_a_table_needs_its_key(file, name):
    with pytest.raises(OutcomesError, match=f"column '{name}' is missing; found: .*prompt"):
        read_outcomes(write(file, without(name)))


def test_a_column_that_was_asked_for_must_be_there(file):
    with pytest.raises(OutcomesError, match="column 'response' is missing"):
        read_outcomes(write(file, without("response")), columns=["response"])


def test_a_column_that_does_not_exist_is_refused_naming_those_that_do(file):
    with pytest.raises(OutcomesError, match=r"'reply' is no column .*response"):
        read_outcomes(write(file, ROWS), columns=["reply"])


def test_a_model_that_is_not_in_the_table_is_refused_naming_the_nearest(file):
    with pytest.raises(OutcomesError, match="no replies of model 'smal'; did you mean small"):
        read_outcomes(write(file, ROWS), models=["smal", "large"])


def test_a_path_that_is_no_table_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "table.csv").write_text("query_id,model")
    (tmp_path / "empty").mkdir()

    for path, split, expected in [
        ("missing.parquet", None, "no such file or folder"),
        ("table.csv", None, r"expected a .parquet or .jsonl file, found '.csv'"),
        ("empty", None, r"expected \*.parquet or \*.jsonl in this folder, found no tables"),
        (".", "dev", "expected dev.parquet or dev.jsonl in this folder, found train.jsonl"),
    ]:
        with pytest.raises(OutcomesError, match=expected):
            read_outcomes(tmp_path / path, split=split)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"query_id": "q"\n', "row 1: is not valid JSON"),
        (b"[1]\n", "row 1: expected a JSON object on each line"),
        (b'\n\n{"query_id": "\xff"}', "row 3: is not valid JSON"),
        (b"[" * 100_000, "row 1: is not valid JSON"),
    ],
)
def test_broken_lines_are_refused_with_their_number(tmp_path, content, expected):
    (tmp_path / "table.jsonl").write_bytes(content)

    with pytest.raises(OutcomesError, match=expected):
        read_outcomes(tmp_path / "table.jsonl")


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "table.parquet").write_bytes(b"PAR0 is not how it begins")

    with pytest.raises(OutcomesError, match="cannot be read as parquet"):
        read_outcomes(tmp_path / "table.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "table.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(OutcomesError, match=r"install frugal-gateway\[recorded\]"):
        read_outcomes(tmp_path / "table.parquet")


def test_an_empty_table_has_no_rows(tmp_path):
    schema = pa.schema([("query_id", pa.string()), ("model", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "table.parquet")

    assert len(read_outcomes(tmp_path / "table.parquet")) == 0
    with pytest.raises(OutcomesError, match="the table is empty"):
        read_outcomes(tmp_path / "table.parquet", models=["small"])


def test_a_conversation_is_kept_as_messages(file):
    messages = [{"role": "user", "content": "hello"}]
    table = read_outcomes(write(file, [ROWS[0] | {"messages": messages}]))

    assert table.column("messages") == [messages]


def test_every_column_has_a_place_in_an_outcome():
    assert COLUMNS[:3] == ("query_id", "model", "sample")
    assert "propensity" in COLUMNS
