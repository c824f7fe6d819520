from __future__ import annotations

import os

import pytest

from gateway.access.refused import Board, Refusals, told_to_workers
from gateway.settings import ALONE, Team


def test_refusals_are_counted_by_reason_and_key():
    refusals = Refusals()
    for code, key in (("a", "ci"), ("b", "ci"), ("a", "ci"), ("a", "dev")):
        refusals.count(code, "red", key)

    assert refusals.report()[0] == {"code": "a", "tenant": "red", "key": "ci", "requests": 2}
    assert sum(row["requests"] for row in refusals.report()) == 4


def test_however_many_keys_are_refused_the_count_stays_small():
    refusals = Refusals()
    for number in range(3_000):
        refusals.count("a", "red", f"key{number}")

    assert len(refusals.report()) <= 1_001
    assert sum(row["requests"] for row in refusals.report()) == 3_000


FIRST, SECOND = Team(2, "abcdef00"), Team(2, "abcdef01")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger.db-refusals"


async def test_each_worker_tells_of_them_all(folder):
    mine, theirs = Refusals(), Refusals()
    async with told_to_workers(mine, folder, FIRST), told_to_workers(theirs, folder, SECOND):
        mine.count("a", "red", "ci")
        theirs.count("a", "red", "ci")
        theirs.count("b")
        Board(folder, SECOND).tell(theirs.own())

        assert mine.report() == [
            {"code": "a", "tenant": "red", "key": "ci", "requests": 2},
            {"code": "b", "tenant": "", "key": "", "requests": 1},
        ]
        assert mine.by_code() == {"a": 2, "b": 1}
        assert theirs.by_code() == {"a": 1, "b": 1}, "the first has not told yet"


async def test_a_worker_that_takes_anothers_place_goes_on_counting(folder):
    dead = Refusals()
    dead.count("a", "red", "ci", 3)
    Board(folder, SECOND).tell(dead.own())
    heir = Refusals()
    async with told_to_workers(heir, folder, SECOND):
        heir.count("a", "red", "ci")

        assert heir.by_code() == {"a": 4}


async def test_another_run_is_not_added_and_is_swept_away_once_it_is_old(folder):
    other, old = (Board(folder, Team(2, f"{run}01")) for run in ("123456", "654321"))
    for board in (other, old):
        board.tell([("a", "", "", 1)])
    os.utime(folder / "65432101.json", (0, 0))
    (folder / "abcdef01.json").write_text("{torn")
    mine = Refusals()
    async with told_to_workers(mine, folder, FIRST):
        assert mine.report() == []

    assert {path.name for path in folder.iterdir()} == {"12345601.json", "abcdef01.json"}


async def test_one_worker_alone_writes_nothing(folder):
    async with told_to_workers(Refusals(), folder, ALONE):
        pass

    assert not folder.exists()
