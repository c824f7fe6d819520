from __future__ import annotations

import pytest

from gateway.learning.book import Book, LearnStep, OutcomeRow
from gateway.money.migrate import migrate_sqlite


def row(number, **changes):
    given = {
        "request_id": f"r{number}",
        "model": "small",
        "at_us": number,
        "seq": 0,
        "route": "auto",
        "tenant": "t",
        "revision": "1",
        "bundle": "",
        "reference": "large",
        "answered_by": "",
        "served": True,
        "drawn": True,
        "quality": 0.9,
        "propensity": 0.02,
        "score": 1.0,
        "labeller": "exact",
        "finish_reason": "stop",
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "cost_nano_usd": 3,
        "latency_us": 4,
        "stats": "{}",
    }
    return OutcomeRow(**given | changes)


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "ledger.db"
    migrate_sqlite(path)
    book = Book(f"sqlite:///{path}")
    yield book
    book.close()


def test_outcomes_come_back_as_they_were_written(book):
    rows = [row(1, vector=b"1234"), row(2, drawn=False, score=None, messages="[]")]
    book.add(rows)
    book.add(rows[:1])

    assert book.rows("auto") == rows
    assert book.counts("auto") == (1, 1)
    assert book.routes() == ["auto"]
    assert book.rows("other") == []


def test_the_oldest_outcomes_go(book):
    book.add([row(number) for number in range(10)])
    book.prune("auto", most=4)
    book.prune("auto", most=4)

    assert [kept.at_us for kept in book.rows("auto")] == [6, 7, 8, 9]


def test_the_days_spend_adds_up_over_processes(book, tmp_path):
    other = Book(f"sqlite:///{tmp_path / 'ledger.db'}")
    book.spend("auto", 5, 100)
    other.spend("auto", 5, 11)
    other.close()

    assert (book.spent("auto", 5), book.spent("auto", 6)) == (111, 0)


def test_a_step_is_whoevers_was_first(book):
    step = LearnStep("auto", 1, 7, "platt", "{}")

    assert book.take(step)
    assert not book.take(LearnStep("auto", 1, 8, "other", "{}"))
    assert book.steps("auto") == [step]
