from __future__ import annotations

import csv

import pytest
from pyarrow import parquet

from gateway.money.errors import ReportError
from gateway.money.exports import export
from gateway.money.sqlite import SqliteStore
from tests.support.money import entry


@pytest.fixture
def url(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    store.commit(
        [
            entry("b", started_at_us=1_795_000_001_500_000, tenant="=HYPERLINK(1)", ttft_us=None),
            entry("a", started_at_us=1_795_000_000_000_000, model="@SUM", error="\tx", tags=("t",)),
        ],
        [],
    )
    store.close()
    return f"sqlite:///{tmp_path}/ledger.db"


def test_csv_holds_one_row_a_request_and_nothing_that_a_spreadsheet_would_run(url, tmp_path):
    told = []
    count = export(url, tmp_path / "out.csv", progress=told.append)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert (count, told) == (2, [2])
    assert [row["request_id"] for row in rows] == ["a", "b"]
    assert rows[1]["started_at"] == "2026-11-18T11:06:41.500+00:00"
    assert (rows[1]["tenant"], rows[0]["model"]) == ("'=HYPERLINK(1)", "'@SUM")
    assert rows[0]["error"] == "'\tx"
    assert rows[0]["tags"] == '["t"]'
    assert rows[0]["cost_nano_usd"] == "1000"
    assert rows[1]["ttft_us"] == ""


def test_parquet_holds_whole_numbers_and_texts_as_they_are(url, tmp_path):
    export(url, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()

    assert [row["tenant"] for row in table] == ["platform", "=HYPERLINK(1)"]
    assert table[0]["cost_nano_usd"] == 1_000
    assert table[1]["ttft_us"] is None


def test_only_what_was_asked_for_is_in_it(url, tmp_path):
    assert export(url, tmp_path / "out.csv", since="2026-11-18T11:06:41") == 1


def test_another_kind_of_file_is_refused_and_nothing_is_left(url, tmp_path):
    with pytest.raises(ReportError, match=r"\.csv or \.parquet"):
        export(url, tmp_path / "out.xls")
    with pytest.raises(ReportError, match="expected a time"):
        export(url, tmp_path / "out.csv", since="soon")

    assert [each.name for each in tmp_path.iterdir() if "out" in each.name] == []
