from __future__ import annotations

import sqlite3

import pytest

from cache.fingerprint import fingerprint, partition, writer_mark
from cache.scope import Scope
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.store import AnswerStore
from cache.types import CachedReply


def scope(tenant="acme", system="a"):
    return fingerprint(tenant, "auto", "1", {"system": system})


def reply(text="hello", *, model="m", route="auto", tags=(), created_at=100.0, worth=1.0):
    return CachedReply(
        (text.encode(),), False, model, {"output": 3}, created_at, "m:served",
        route=route, tags=tags, worth=worth,
    )  # fmt: skip


def put(store, question, *, where=None, text="hello", expires_at=1000.0, **labels):
    made = reply(text, **labels)
    return store.put(
        where or scope(), question, b"codes", made, answer=text, expires_at=expires_at
    )[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


@pytest.fixture
def store(path):
    with AnswerStore(path, "v1") as opened:
        yield opened


def test_an_answer_comes_back_whole(store):
    number = put(store, "How?", text="so", tags=("a", "b"))

    assert store.reply(number) == reply("so", tags=("a", "b"))


def test_hits_are_added_up(store):
    number = put(store, "How?")
    store.count_hits({number: 2})
    store.count_hits({number: 1, number + 1: 5})

    assert store.questions([number], 0.0)[number].hits == 3


def test_one_question_of_a_scope_has_one_answer(store):
    first = put(store, "How?", text="old")
    number, old = store.put(scope(), "How?", b"c", reply("new"), answer="new", expires_at=9.0)

    assert old == first
    assert store.reply(first) is None
    assert store.reply(number).parts == (b"new",)
    assert len(store) == 1


def test_what_is_too_old_is_not_a_question_any_more(store):
    young, old = put(store, "a", expires_at=50.0), put(store, "b", expires_at=10.0)

    assert list(store.questions([young, old], 20.0)) == [young]
    assert [gone.id for gone in store.drop_expired(20.0)] == [old]


def test_what_was_committed_survives_a_process_that_never_closes(path):
    lost = AnswerStore(path, "v1")
    number = put(lost, "How?")

    with AnswerStore(path, "v1") as found:
        assert found.reply(number) == reply()
    lost.__exit__(None, None, None)


def test_others_see_what_one_process_adds_and_drops(path, store):
    with AnswerStore(path, "v1") as other:
        before = store.changes_of_others()
        number = put(other, "How?")

        assert store.changes_of_others() != before
        assert [place.id for place in store.after(0, 0.0)] == [number]
        store.drop([number])
        assert other.reply(number) is None


def test_a_damaged_answer_is_dropped(path, store):
    number = put(store, "How?")
    with sqlite3.connect(path) as file:
        file.execute(
            "UPDATE answer SET reply = CAST(substr(reply, 1, length(reply) - 1) || x'7f' AS BLOB)"
        )

    assert store.reply(number) is None
    assert len(store) == 0


def test_an_answer_moved_to_another_question_is_dropped(path, store):
    number = put(store, "How?")
    with sqlite3.connect(path) as file:
        file.execute("UPDATE answer SET question = 'Why?'")

    assert store.reply(number) is None


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (Scope(tenant="acme"), {"d"}),
        (Scope(route="other"), {"a", "b", "d"}),
        (Scope(model="big"), {"a", "c", "d"}),
        (Scope(tag="x"), {"b", "c", "d"}),
        (Scope(before=90.0), {"a", "b", "c"}),
        (Scope(tenant="acme", model="big"), {"a", "c", "d"}),
        (Scope(corpus="faq"), {"a", "b", "c", "d"}),
        (Scope(), set()),
    ],
)
def test_entries_are_dropped_by_what_somebody_means(store, wanted, left):
    put(store, "a", tags=("x", "y"))
    put(store, "b", model="big", tags=("xx",))
    put(store, "c", route="other")
    put(store, "d", where=scope("other"), created_at=80.0)

    assert store.count_where(wanted) == 4 - len(left)
    assert len(store.drop_where(wanted)) == 4 - len(left)
    ids = [place.id for place in store.after(0, 0.0)]
    assert {found.question for found in store.questions(ids, 0.0).values()} == left


def test_the_least_asked_for_go_first(store):
    numbers = [put(store, question) for question in "abc"]
    put(store, "d", where=scope("other"))
    store.count_hits({numbers[0]: 1})

    assert [gone.id for gone in store.drop_beyond(partition("acme"), 1)] == numbers[1:]
    assert len(store) == 2


def test_an_alias_holds_the_answer_of_another_while_that_is_there(store):
    first, second = put(store, "How?", text="so"), put(store, "How then?", text="thus")
    third = put(store, "And how?", text="other")
    store.alias(scope(), "How then?", first)
    store.alias(scope(), "And how?", third + 1)

    found = store.questions([first, second, third], 0.0)
    assert found[first].answer_key == found[second].answer_key != found[third].answer_key


def test_a_corpus_is_dropped_with_what_tenants_share_in_it(store):
    faq = fingerprint("", "auto", "1", {}, corpus="faq")
    put(store, "a")
    put(store, "b", where=faq, tags=(writer_mark("acme"),))
    put(store, "c", where=faq, tags=(writer_mark("other"),))

    assert store.count_where(Scope(corpus="faq", tenant="acme")) == 1
    assert len(store.drop_where(Scope(corpus="faq"))) == 2
    assert store.count_where(Scope()) == 1


def least(store, most=1, tenant="acme"):
    return [gone.id for gone in store.drop_beyond(partition(tenant), most)]


def test_what_saves_least_for_its_room_goes_first(store):
    dear = put(store, "dear", worth=0.02)
    large = put(store, "large", worth=0.02, text="".join(map(str, range(3000))))
    cheap = put(store, "cheap", worth=0.001)
    used = put(store, "used", worth=0.001)
    store.count_hits({used: 50})

    assert least(store, 3) == [cheap]
    assert least(store, 2) == [large]
    assert least(store, 1) == [dear]
    assert least(store, 1) == []


def test_what_was_once_in_demand_does_not_stay_for_ever(store, path):
    once = put(store, "once", worth=0.001)
    store.count_hits({once: 3})
    gone = []
    for number in range(8):
        put(store, f"new {number}", worth=0.001)
        gone += least(store, 1)
        if number == 1:
            with AnswerStore(path, "v1") as again:  # what was let go of is known after a restart
                assert again.count_where(Scope()) == 1

    assert once in gone
    assert gone[0] != once


def test_what_another_embedder_left_behind_does_not_make_time_go_back(path):
    with AnswerStore(path, "v1") as older:
        left = put(older, "left", worth=0.001)
    with AnswerStore(path, "v2") as store:
        for question in "abc":
            put(store, question, worth=0.01)
            least(store, 1)
        store.renew(left, b"codes")
        assert len(least(store, 1)) == 1
        newest = put(store, "d", worth=0.01)

        assert newest not in least(store, 1)


def test_owners_do_not_compete(store):
    mine = put(store, "a", worth=0.001)
    put(store, "b", worth=5.0, where=scope("other"))
    newer = put(store, "c", worth=0.002)

    assert least(store, 1) == [mine]
    assert least(store, 1, "other") == []
    assert least(store, 0) == [newer]


def test_a_file_from_before_entries_were_weighed_is_taken_on(path):
    with AnswerStore(path, "v1") as before:
        numbers = [put(before, question) for question in "abc"]
        before.count_hits({numbers[0]: 2})
    with sqlite3.connect(path) as file:
        file.execute("ALTER TABLE answer DROP COLUMN per_byte")
        file.execute("ALTER TABLE answer DROP COLUMN priority")
        file.execute("DROP TABLE aged")
    file.close()

    with AnswerStore(path, "v1") as after:
        assert least(after, 1) == numbers[1:]
        assert after.reply(numbers[0]) == reply()


def test_a_tenant_is_forgotten_with_what_it_paid_for_in_a_corpus(store):
    corpus = fingerprint("", "auto", "1", {}, corpus="docs")
    put(store, "a", where=corpus, tags=(writer_mark("acme"),))
    put(store, "b", where=corpus, tags=("x", writer_mark("other")))
    put(store, "c")

    assert store.count_where(Scope(tenant="other")) == 1
    assert len(store.drop_where(Scope(tenant="acme"))) == 2
    assert len(store.drop_where(Scope(tenant="docs"))) == 0
    assert len(store) == 1


def test_another_version_of_the_embedder_sees_only_its_own_until_they_are_renewed(path, store):
    number = put(store, "How?", text="so")
    with AnswerStore(path, "v2") as newer:
        assert newer.after(0, 0.0) == []
        assert newer.stale(10) == [(number, "How?")]
        newer.renew(number, b"other")

        (place,) = newer.after(0, 0.0)
        assert place.codes == b"other"
        assert newer.reply(place.id) == reply("so")
        assert newer.stale(10) == []


def test_budgets_are_kept_by_tenant_and_route(path, store):
    spent = ErrorBudget(False, 10.0, 3.0, 1)
    store.put_budget("acme", "auto", spent)

    with AnswerStore(path, "v1") as other:
        assert other.budget("acme", "auto") == spent
        assert other.budget("acme", "else") == ErrorBudget()
        assert other.budgets() == [("acme", "auto", spent)]


def test_only_its_owner_may_read_the_file(path, store):
    put(store, "How?")

    assert [each.stat().st_mode & 0o077 for each in path.parent.glob("answers.db*")] == [0, 0, 0]
