"""What deciders have learnt survives a restart, and what is foreign or damaged is passed over."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from dataclasses import replace

import msgspec
import pytest

from cache.semantic import learnt
from cache.semantic.calibration import default_calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.grey_zone import GreyZone
from cache.semantic.learnt import Lesson
from cache.semantic.lessons import Lessons
from cache.semantic.store import AnswerStore
from cache.semantic.types import Candidate, Decision
from tests.support.semantic import AtLeast

ASKED = "how can i reset my password"
UNSURE = Decision(None, 0.95, 0.9, "not sure enough", grey=0)


def candidate(similarity=0.9, entry_id="1", answer_key=""):
    return Candidate("how do i reset the password", 9, similarity, entry_id, 0, 0.0, answer_key)


def decider(tenant, route):
    return CalibratedDecider()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


def opened(path, embedder="letters", make=decider):
    store = AnswerStore(path, embedder)
    return store, Lessons(store.learnt, make, lambda: 1000.0)


def taught(path, entries=("1", "2", "3"), was_right=False, **place):
    """Teach a route and return what it decides then."""
    store, lessons = opened(path, **place)
    with store:
        here = lessons.decider("acme", "auto")
        shared = [candidate(0.9, "1", "x"), candidate(0.9, "9", "x")]
        for entry in entries:
            here.decide(ASKED, [candidate(0.9, entry)], 0.05)
            lessons.learn("acme", "auto", entry, was_right)
        here.decide(ASKED, shared, 0.05)
        lessons.learn("acme", "auto", "1", was_right)
        lessons.write()
        return decided(here)


def decided(here):
    return [
        here.decide(ASKED, [candidate(0.9, "1")], 0.05),
        here.decide(ASKED, [candidate(0.9, "new")], 0.05),
        here.decide(ASKED, [candidate(0.9, "1", "x"), candidate(0.9, "9", "x")], 0.05),
    ]


def decided_anew(path, tenant="acme", route="auto", **place):
    store, lessons = opened(path, **place)
    with store:
        return decided(lessons.decider(tenant, route))


def altered(path, sql, *given):
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(sql, given)


FRESH = decided(CalibratedDecider())


def test_a_route_goes_on_from_what_it_had_learnt(path):
    before = taught(path)

    assert before != FRESH
    assert decided_anew(path) == before


def test_what_was_learnt_is_of_its_tenant_and_route_alone(path):
    taught(path)

    assert decided_anew(path, tenant="other") == FRESH
    assert decided_anew(path, route="other") == FRESH


def test_another_embedder_begins_anew_and_says_so(path, caplog):
    taught(path)

    assert decided_anew(path, embedder="other") == FRESH
    assert "another embedder or calibration" in caplog.text
    assert decided_anew(path) != FRESH


def test_another_calibration_begins_anew(path):
    taught(path)
    shipped = default_calibration()
    bolder = replace(shipped, caution=shipped.caution / 2)

    assert decided_anew(path, make=lambda *_: CalibratedDecider(bolder)) == decided(
        CalibratedDecider(bolder)
    )


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"garbage",
        msgspec.msgpack.encode({"mean": float("nan"), "variance": 0.5}),
        msgspec.msgpack.encode({"mean": 1e9, "variance": 0.5}),
        msgspec.msgpack.encode({"mean": 0.0, "variance": 0.0}),
        msgspec.msgpack.encode({"mean": 0.0, "variance": 1e9}),
        msgspec.msgpack.encode({"mean": 0.0}),
    ],
    ids=["empty", "garbage", "nan", "absurd", "too sure", "too unsure", "half"],
)
def test_a_damaged_row_is_passed_over_with_a_warning(path, state, caplog):
    taught(path)
    altered(path, "UPDATE learnt SET state = ?", state)

    assert decided_anew(path) == FRESH
    assert "make no sense" in caplog.text


def test_a_row_that_is_no_bytes_or_of_no_known_kind_is_passed_over(path, caplog):
    taught(path)
    altered(path, "UPDATE learnt SET state = 'text' WHERE kind = 'route'")
    altered(path, "UPDATE learnt SET kind = 'unheard of' WHERE kind = 'entry' AND name = '2'")

    assert decided_anew(path)[0].serve is None, "what is sound is still known"
    assert "damaged" in caplog.text
    assert "make no sense" in caplog.text


def test_what_was_learnt_is_there_after_a_kill_once_it_was_much(path):
    store, lessons = opened(path)
    here = lessons.decider("acme", "auto")
    for entry in map(str, range(64)):
        here.decide(ASKED, [candidate(0.9, entry)], 0.05)
        lessons.learn("acme", "auto", entry, False)
    before = decided(here)

    # Nothing was closed: another connection sees what a killed process had committed.
    assert decided_anew(path) == before
    store.__exit__(None, None, None)


def test_so_many_are_kept_and_the_oldest_go(path, monkeypatch):
    monkeypatch.setattr(learnt, "MOST_A_ROUTE", 4)
    store, _ = opened(path)
    with store:
        for at in range(6):
            store.learnt.write("acme", "auto", "b", [Lesson("entry", str(at), b"")], float(at))
        store.learnt.write("other", "auto", "b", [Lesson("entry", "0", b"")], 0.0)

        assert [each.name for each in store.learnt.recall("acme", "auto", "b")] == list("2345")
        assert len(store.learnt.recall("other", "auto", "b")) == 1

    monkeypatch.setattr(learnt, "MOST", 3)
    store, _ = opened(path)
    with store:
        assert [each.name for each in store.learnt.recall("acme", "auto", "b")] == list("345")
        assert store.learnt.recall("other", "auto", "b") == []


def visited(lessons, count):
    for number in range(count):
        lessons.decider(f"visitor {number}", "auto")


def test_deciders_beyond_a_bound_are_let_go_of_and_come_back_as_they_were(path):
    store = AnswerStore(path, "letters")
    with store:
        lessons = Lessons(store.learnt, decider, lambda: 1000.0, most=4)
        here = lessons.decider("acme", "auto")
        zone = lessons.zone("acme", "auto", "pairs")
        for entry in "123":
            here.decide(ASKED, [candidate(0.9, entry)], 0.05)
            zone.decide(UNSURE, entry, 5.0, 0.01)
            lessons.learn("acme", "auto", entry, False)
        before = decided(here)
        visited(lessons, 3)
        assert lessons.decider("acme", "auto") is here, "who is asked is held"
        visited(lessons, 6)
        back = lessons.decider("acme", "auto")

        assert back is not here
        assert decided(back) == before != FRESH
        assert lessons.zone("acme", "auto", "pairs") is not zone


def test_what_cannot_be_written_is_not_let_go_of(path, caplog):
    store = AnswerStore(path, "letters")
    with store:
        lessons = Lessons(store.learnt, decider, lambda: 1000.0, most=2)
        here = lessons.decider("acme", "auto")
        here.decide(ASKED, [candidate()], 0.05)
        lessons.learn("acme", "auto", "1", False)
        altered(
            path, "CREATE TRIGGER full BEFORE INSERT ON learnt BEGIN SELECT RAISE(ABORT, ''); END"
        )
        visited(lessons, 5)

        assert "not kept yet" in caplog.text
        assert lessons.decider("acme", "auto") is here
        altered(path, "DROP TRIGGER full")
        visited(lessons, 5)
        assert lessons.decider("acme", "auto") is not here


def test_the_scores_of_a_cross_encoder_are_known_after_a_restart(path):
    store, lessons = opened(path)
    with store:
        lessons.decider("acme", "auto")
        zone = lessons.zone("acme", "auto", "pairs")
        for n in range(400):
            zone.decide(UNSURE, str(n), 5.0 if n % 2 else -5.0, 0.01)
            lessons.learn("acme", "auto", str(n), bool(n % 2))
        lessons.write()
        before = zone.decide(UNSURE, "a", 5.0, 0.01)
    store, lessons = opened(path)
    with store:
        again = lessons.zone("acme", "auto", "pairs")

        assert before.serve == 0
        assert again.decide(UNSURE, "a", 5.0, 0.01) == before
        assert lessons.zone("acme", "auto", "another").decide(UNSURE, "a", 5.0, 0.01) == UNSURE


def test_damaged_scores_are_passed_over(path, caplog):
    store, lessons = opened(path)
    with store:
        lessons.decider("acme", "auto")
        zone = lessons.zone("acme", "auto", "pairs")
        zone.decide(UNSURE, "1", 5.0, 0.01)
        lessons.learn("acme", "auto", "1", True)
        lessons.write()
    sound = msgspec.msgpack.decode(zone.dumped())
    for wrong in ({"platt": None}, {"platt": {**sound["platt"], "precision": [1.0, 9.0, 4.0]}},
                  {"labels": [[1e9, True]]}):  # fmt: skip
        assert not GreyZone().recall(msgspec.msgpack.encode({**sound, **wrong}))
    altered(path, "UPDATE learnt SET state = x'00' WHERE kind = 'pairs'")
    store, lessons = opened(path)
    with store, caplog.at_level(logging.WARNING):
        lessons.zone("acme", "auto", "pairs")

    assert "make no sense" in caplog.text


def test_a_file_that_cannot_be_written_to_is_tried_again(path, caplog):
    store, lessons = opened(path)
    with store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store._file.execute("PRAGMA busy_timeout = 1")
        here = lessons.decider("acme", "auto")
        here.decide(ASKED, [candidate()], 0.05)
        lessons.learn("acme", "auto", "1", False)
        other.execute("BEGIN IMMEDIATE")
        lessons.write()
        assert "not kept yet" in caplog.text
        other.execute("ROLLBACK")
        lessons.write()

        assert {each.kind for each in store.learnt.recall("acme", "auto", here.basis)} == {
            "entry", "route", "taught",
        }  # fmt: skip


def test_a_decider_that_remembers_nothing_is_let_be(path):
    store, lessons = opened(path, make=lambda *_: AtLeast())
    with store:
        lessons.learn("acme", "auto", "1", True)
        lessons.write()

        assert lessons.decider("acme", "auto").observed == [("1", True)]
