"""What was invalidated when: scopes and the epochs they open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.epochs import MAX_SCOPES, Epochs
from cache.fingerprint import fingerprint, writer_mark
from cache.scope import Scope, Tally
from cache.types import CachedReply

NAMES = st.none() | st.sampled_from(["a", "b"])
scopes = st.builds(
    Scope,
    tenant=NAMES,
    route=NAMES,
    model=NAMES,
    tag=NAMES,
    before=st.none() | st.sampled_from([10.0, 20.0]),
    corpus=NAMES,
)
entries = st.builds(
    lambda tenant, corpus, route, model, tags, at: (
        fingerprint(tenant, route, "1", {}, corpus=corpus),
        CachedReply(
            (b"",),
            False,
            model,
            {},
            at,
            "",
            route=route,
            tags=tags if corpus is None else (*tags, writer_mark(tenant)),
        ),
        tenant,
        corpus,
    ),
    st.sampled_from(["a", "b"]),
    NAMES,
    *[st.sampled_from(["a", "b"])] * 2,
    st.sampled_from([(), ("a",), ("a", "b")]),
    st.sampled_from([5.0, 15.0, 25.0]),
)


@given(scopes, entries)
def test_a_scope_matches_where_all_that_it_names_holds(
    scope: Scope, entry: tuple[bytes, CachedReply, str, str | None]
) -> None:
    key, reply, tenant, corpus = entry
    expected = (
        scope.tenant in (None, tenant)
        and scope.corpus in (None, corpus)
        and scope.route in (None, reply.route)
        and scope.model in (None, reply.model)
        and (scope.tag is None or scope.tag in reply.tags)
        and (scope.before is None or reply.created_at < scope.before)
    )

    assert scope.matcher()(key, reply) is expected


@given(scopes)
def test_a_scope_survives_being_written_down(scope: Scope) -> None:
    assert Scope.load(scope.dump()) == scope


def test_a_scope_that_an_earlier_version_wrote_down_is_understood() -> None:
    assert Scope.load(b'["acme","auto",null,null,"00ff",10.5]') == Scope(
        "acme", "auto", key=b"\x00\xff", before=10.5
    )


@pytest.mark.parametrize("said", [b"{}", b"[1]", b'["a","b","c","d","xyz",1.5,"e"]', b"[]", b""])
def test_what_is_no_scope_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError, match="expected a scope"):
        Scope.load(said)


def test_a_scope_with_a_key_survives_being_written_down() -> None:
    scope = Scope(key=b"\x00\xff" * 16)

    assert Scope.load(scope.dump()) == scope


@given(st.lists(scopes, max_size=8), st.integers(0, 8), entries)
def test_an_entry_stands_unless_its_scope_was_invalidated_after_its_stamp(
    invalidated: list[Scope], stamp: int, entry: tuple[bytes, CachedReply, str, str | None]
) -> None:
    key, reply, *_ = entry
    epochs = Epochs()
    for scope in invalidated:
        epochs.open(scope)

    void = any(scope.matcher()(key, reply) for scope in invalidated[stamp:])
    assert epochs.admits(stamp, key, reply) is not void


@given(st.lists(scopes, max_size=8), entries)
def test_one_process_learns_from_another_what_it_has_missed(
    invalidated: list[Scope], entry: tuple[bytes, CachedReply, str, str | None]
) -> None:
    key, reply, *_ = entry
    opened: dict[bytes, int] = {}
    for at, scope in enumerate(invalidated, start=100):
        opened[scope.dump()] = at
    epochs = Epochs()
    news = epochs.adopt(99 + len(invalidated), opened)

    assert set(news) == set(invalidated)
    assert epochs.adopt(epochs.now, opened) == []
    void = any(scope.matcher()(key, reply) for scope in invalidated)
    assert epochs.admits(99, key, reply) is not void


def test_too_many_scopes_become_one_that_says_more() -> None:
    epochs = Epochs()
    for number in range(MAX_SCOPES + 1):
        epochs.open(Scope(tag=str(number)))

    assert len(epochs) == 1
    assert not epochs.admits(MAX_SCOPES, b"", CachedReply((), False, "m", {}, 0.0, ""))


def test_what_another_version_wrote_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a scope"):
        Epochs().adopt(1, {b"no scope": 1})


def test_tallies_add_up() -> None:
    assert Tally(1, 10) + Tally(2, 5) == Tally(3, 15)
