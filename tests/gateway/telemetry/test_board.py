"""Whichever worker is scraped tells how all of them stand."""

from __future__ import annotations

import asyncio
import os

import pytest

from gateway.settings import ALONE, Team
from gateway.telemetry.board import STALE_S, FigureBoard, figure_board

FIRST, SECOND = Team(2, "abcdef00"), Team(2, "abcdef0b")


def figures(waiting=3.0):
    return {
        "process_queue_waiting": [((), waiting)],
        "process_queue_wait_seconds": [(("admitted",), [1.0, 2.0, 0.5])],
        "process_breaker_state": [(("m", "open"), 1.0)],
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger.db-figures"


def test_workers_hear_of_each_other_by_number(folder):
    FigureBoard(folder, SECOND, figures).tell(figures())
    board = FigureBoard(folder, FIRST, lambda: figures(7.0))
    board.tell(figures(7.0))

    assert board.own() == ("0", figures(7.0))
    assert board.others() == {"11": figures()}


def test_a_worker_that_is_gone_another_run_and_what_is_no_file_of_ours_are_not_told(folder):
    FigureBoard(folder, SECOND, figures).tell(figures())
    FigureBoard(folder, Team(2, "12345601"), figures).tell(figures())
    old = folder / "abcdef0b.json"
    os.utime(old, (old.stat().st_mtime - STALE_S - 5,) * 2)
    (folder / "abcdef05.json").write_text('{"half": ')
    (folder / "abcdefxx.json").write_text("{}")

    assert FigureBoard(folder, FIRST, figures).others() == {}


async def test_one_that_is_alone_writes_nothing(folder):
    async with figure_board(folder, ALONE, figures) as board:
        assert board.own() == ("0", figures())
        assert board.others() == {}

    assert not folder.exists()


async def test_who_leaves_takes_its_figures_along(folder):
    async with figure_board(folder, SECOND, figures):
        first = FigureBoard(folder, FIRST, figures)
        while not (found := first.others()):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)
        assert found == {"11": figures()}

    assert first.others() == {}
    assert not list(folder.glob("*.json"))
