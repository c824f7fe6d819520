"""What counts of what clients say, and where it is used."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.access.keys import Caller
from gateway.learning.book import Book, OutcomeRow
from gateway.learning.feedback import (
    FULL_A_DAY,
    Feedback,
    Spoken,
    keep,
    ratings,
    word_of,
    words_of,
)
from gateway.learning.traffic import traffic_of
from gateway.money.databases import made
from gateway.money.migrate import migrate_sqlite
from tests.support.postgres_server import PostgresServer

DAY_US = 86_400_000_000


def word(number, **changes):
    given = Feedback(f"r{number}", "key", number, "t", "auto", "small", "miss", "large", 1.0, 1.0)
    return replace(given, **changes)


def row(number, *, score=None, drawn=True):
    given = ("auto", "t", "1", "", "large", "")
    return OutcomeRow(f"r{number}", "small", number, 0, *given, True, drawn, 0.9, 0.5, score, "",
                      "stop", 1, 1, 1, 1, '{"raw": 0.5}')  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def book(request, tmp_path):
    if request.param == "sqlite":
        migrate_sqlite(tmp_path / "ledger.db")
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
    else:
        url = request.getfixturevalue("server").new_database()
        made(url)
    book = Book(url)
    yield book
    book.close()


def test_of_one_keys_words_only_so_many_count_on_a_day(book):
    kept = [keep(book, word(number)) for number in range(FULL_A_DAY + 5)]
    other = keep(book, word(0, key="other"))
    elsewhere = keep(book, word(900, route="else"))
    tomorrow = keep(book, word(901, at_us=DAY_US))

    assert [each.weight for each in kept] == [1.0] * FULL_A_DAY + [0.0] * 5
    assert (other.weight, elsewhere.weight, tomorrow.weight) == (1.0, 1.0, 1.0)
    assert len(ratings(words_of(book, "auto"))) == FULL_A_DAY + 1


def test_to_say_again_takes_no_further_place_and_makes_nothing_count(book):
    for number in range(FULL_A_DAY + 1):
        keep(book, word(number))
    first = keep(book, word(0, score=0.0))
    last = keep(book, word(FULL_A_DAY, score=0.0))

    assert (first.weight, first.score, first.at_us) == (1.0, 0.0, 0)
    assert (last.weight, last.score) == (0.0, 0.0)
    assert len(words_of(book, "auto")) == FULL_A_DAY + 1


def test_a_key_behind_whose_back_nothing_is_learnt_weighs_nothing():
    spoken = Spoken("t", "auto", "small", "miss", "large")
    told = word_of("r1", Caller("k", "t", may_learn=False), spoken, 1.0, None, at_us=1)

    assert told.weight == 0.0
    assert ratings([told]) == {}


def test_keys_are_averaged_and_a_caches_answers_are_no_models():
    words = [word(1), word(1, key="b", score=0.0), word(1, key="c", score=0.0, weight=0.0)]
    words.append(word(2, model="", cache="semantic"))

    assert ratings(words) == {("r1", "small"): 0.5}


def test_clients_words_choose_thresholds_and_never_certify():
    rows = [row(number) for number in range(40)]
    rows.append(row(90, score=0.0, drawn=False))
    heard = {(f"r{number}", "small"): 1.0 for number in [*range(40), 90]}
    asked = traffic_of(rows, "large", heard=heard)

    tuned = [each for each in asked[:40] if each.is_for_tuning]
    held = [each for each in asked[:40] if not each.is_for_tuning]
    assert tuned
    assert {(e.drafts[0].score, e.drafts[0].is_heard) for e in tuned} == {(1.0, True)}
    assert held
    assert {(e.drafts[0].score, e.drafts[0].is_heard) for e in held} == {(None, False)}
    assert asked[40].drafts[0].score == 0.0
