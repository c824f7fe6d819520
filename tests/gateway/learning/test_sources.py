"""Outcomes straight from a ledger, and what is told where there are none to learn from."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.learning.book import Book
from gateway.learning.errors import LearningError
from gateway.learning.sources import as_files, shown
from gateway.money.migrate import migrate_sqlite
from router.learn_table import LearnTable
from router.types import OutcomesError
from tests.support.sums import write_ledger, write_outcomes


def add_other(url, **changes):
    book = Book(url)
    first = book.rows("auto")[0]
    book.add([replace(first, request_id="another", **changes)])
    book.close()


def test_a_ledger_makes_the_table_that_a_file_does(tmp_path):
    url = write_ledger(tmp_path / "ledger.db", 20)
    path = write_outcomes(tmp_path / "file.jsonl", 20)
    told = []
    with as_files([url, f"{url}#auto", str(path)], lambda *what: told.append(what)) as files:
        one, two, other = (LearnTable.from_outcomes(file, replies=True) for file in files)

    assert one.ids == two.ids == other.ids
    assert (one.score == other.score).all()
    assert [query.text for query in one.queries] == [query.text for query in other.queries]
    assert one.cell(3, 0).response == other.cell(3, 0).response
    assert told[-1] == ("reading the ledger", 1.0)
    assert not files[0].exists()
    assert path.exists()


def test_requests_that_were_not_drawn_are_left_out(tmp_path):
    url = write_ledger(tmp_path / "ledger.db", 5)
    add_other(url, drawn=False)
    with as_files([url]) as (file,):
        assert len(LearnTable.from_outcomes(file)) == 5


def test_requests_that_were_set_against_another_reference_are_left_out(tmp_path):
    url = write_ledger(tmp_path / "ledger.db", 5)
    add_other(url, reference="former")

    def read(reference):
        with as_files([url], reference=reference) as (file,):
            return LearnTable.from_outcomes(file).ids

    assert len(read(None)) == 6
    assert len(read("large")) == 5
    assert read("former") == ["another"]
    with pytest.raises(LearningError, match=r"set against former, large, and .* is nobody"):
        read("nobody")


def test_what_cannot_be_learnt_from_is_told(tmp_path):
    url = write_ledger(tmp_path / "undrawn.db", 3, drawn=False)
    with pytest.raises(LearningError, match="none of its 6 outcomes is of a drawn request"):
        as_files([url]).__enter__()
    with pytest.raises(LearningError, match="there are some of: auto"):
        as_files([f"{url}#other"]).__enter__()
    add_other(url, route="other")
    with pytest.raises(LearningError, match="there are outcomes of: auto, other"):
        as_files([url]).__enter__()
    add_other(url, route="mute", drawn=True, messages=None, model="new")
    with pytest.raises(LearningError, match="store_texts"):
        as_files([f"{url}#mute"]).__enter__()
    with pytest.raises(LearningError, match="cannot be read"):
        as_files([f"sqlite:///{tmp_path}/none.db"]).__enter__()
    migrate_sqlite(tmp_path / "empty.db")
    with pytest.raises(LearningError, match="there are outcomes of: none"):
        as_files([f"sqlite:///{tmp_path}/empty.db"]).__enter__()


def test_a_fault_in_a_ledgers_rows_names_the_ledger(tmp_path):
    url = write_ledger(tmp_path / "ledger.db", 3)
    add_other(url, score=1.5)
    with pytest.raises(OutcomesError) as told, as_files([url]) as (file,):
        LearnTable.from_outcomes(file)

    assert str(told.value).startswith(f"{url}, row 1: score")


def test_no_password_is_written_down():
    assert shown("postgresql://me:secret@host/db#auto") == "postgresql://…#auto"
    assert shown("postgresql://host/db#auto") == "postgresql://host/db#auto"
    assert shown("sqlite:///frugal.db#auto") == "sqlite:///frugal.db#auto"
