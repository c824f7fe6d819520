"""Copies of keys come together whatever happened on each machine, and in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.key_copies import HolderRow, KeyCopy, KeyRow, changed
from gateway.access.key_store import Holder, KeyStore, KeyStoreError

NOW = 1_795_000_000.0
moments = st.one_of(st.none(), st.floats(NOW, NOW + 100))


def holder(name, revoked_at=None, **others):
    said = {"tenant": "t", "scopes": "[]", "tags": "[]", "limits": None, "created_at": NOW}
    return HolderRow(name=name, revoked_at=revoked_at, **said | others)


@st.composite
def copies(draw):
    """Draw what a machine may know of keys that were made one after the other."""
    known = draw(st.sets(st.sampled_from("abcd")))
    holders = {name: holder(name, draw(moments)) for name in sorted(known)}
    keys = {
        name.encode() + bytes([number]): KeyRow(
            name.encode() + bytes([number]), name, "fg-", NOW, draw(moments)
        )
        for name in holders
        for number in range(draw(st.integers(0, 2)))
    }
    return KeyCopy(holders, keys)


@given(copies(), copies(), copies())
def test_machines_agree_whoever_tells_first(one, other, shared):
    first = other.joined(one.joined(shared))
    then = one.joined(other.joined(shared))

    assert first == then
    assert one.joined(first) == first
    assert changed(first, one.joined(first)) == KeyCopy()


@given(copies(), copies())
def test_no_revocation_and_no_earlier_end_is_lost(mine, shared):
    both = mine.joined(shared)

    for copy in (mine, shared):
        for name, row in copy.holders.items():
            assert row.revoked_at is None or both.holders[name].revoked_at <= row.revoked_at
        for digest, key in copy.keys.items():
            assert key.expires_at is None or both.keys[digest].expires_at <= key.expires_at


def test_of_two_who_got_one_name_the_shared_one_keeps_it_and_no_key_changes_hands():
    mine = KeyCopy({"x": holder("x", scopes='["auto"]')}, {b"1": KeyRow(b"1", "x", "", NOW, None)})
    theirs = KeyCopy(
        {"x": holder("x", scopes='["admin"]')}, {b"2": KeyRow(b"2", "x", "", NOW, None)}
    )

    assert mine.joined(theirs) == theirs


@pytest.fixture
def stores(tmp_path):
    """Two machines that hash with one secret."""
    env = {"FRUGAL_KEYS_SECRET": "ab" * 32}
    made = [KeyStore(tmp_path / name / "frugal.keys.db", env) for name in ("one", "other")]
    for name, store in zip(("one", "other"), made, strict=True):
        (tmp_path / name).mkdir()
        store.init()
    return made


def test_a_store_takes_over_what_is_shared_and_keeps_what_it_said_itself(stores):
    one, other = stores
    one.make(Holder("shop", tags=frozenset({"web"})), now=NOW)
    other.make(Holder("batch"), now=NOW)
    other.become(one.copy())
    other.revoke("shop", now=NOW + 1)
    one.become(other.copy())

    assert one.copy() == other.copy()
    assert {kept.holder.name: kept.state(NOW + 2) for kept in one.kept()} == {
        "shop": "revoked", "batch": "active",
    }  # fmt: skip


def test_a_key_whose_name_was_given_elsewhere_is_gone(stores):
    one, other = stores
    one.make(Holder("shop", scopes=frozenset({"admin"})), now=NOW)
    other.make(Holder("shop"), now=NOW + 1)
    other.become(one.copy())

    assert other.copy() == one.copy()
    with pytest.raises(KeyStoreError, match="already"):
        other.make(Holder("shop"), now=NOW + 2)
