"""Entries as bytes: what was written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.codec import HEAD_BYTES, VERSION, Corrupt, Stored, dump, load, load_labels
from cache.fingerprint import fingerprint
from cache.types import CachedReply

keys = st.binary(min_size=32, max_size=32)
replies = st.builds(
    CachedReply,
    parts=st.lists(st.binary(max_size=400), min_size=1, max_size=8).map(tuple),
    streamed=st.booleans(),
    model=st.text(max_size=20),
    usage=st.dictionaries(st.sampled_from(["input", "output"]), st.integers(0, 10**9)),
    created_at=st.floats(0, 4e9),
    path=st.text(max_size=60),
    usage_event=st.none() | st.binary(max_size=200),
    worth=st.floats(0, 100),
    route=st.text(max_size=20),
    tags=st.lists(st.text(max_size=10), max_size=4).map(tuple),
)
stored = st.builds(Stored, replies, st.floats(0, 4e9), st.integers(0, 2**53))
KEY = b"k" * 32
ONE = Stored(CachedReply((b"word " * 900,), False, "m", {"input": 1}, 5.0, "m:served"), 9.0, 7)


@given(keys, stored)
def test_what_is_written_is_read(key: bytes, entry: Stored) -> None:
    assert load(key, dump(key, entry)) == entry


@given(keys, stored)
def test_labels_are_read_from_the_head_alone(key: bytes, entry: Stored) -> None:
    labels = load_labels(dump(key, entry)[:HEAD_BYTES])

    reply = entry.reply
    assert (labels.route, labels.model, labels.tags) == (reply.route, reply.model, reply.tags)
    assert (labels.created_at, labels.stamp) == (reply.created_at, entry.stamp)


@given(keys, stored, st.integers(0, 10**6), st.integers(1, 255))
def test_no_byte_can_change_unseen(key: bytes, entry: Stored, at: int, flip: int) -> None:
    data = bytearray(dump(key, entry))
    data[at % len(data)] ^= flip

    with pytest.raises(Corrupt):
        load(key, bytes(data))


@given(keys, stored, st.integers(0, 10**6))
def test_an_entry_cut_short_is_none(key: bytes, entry: Stored, at: int) -> None:
    data = dump(key, entry)

    with pytest.raises(Corrupt):
        load(key, data[: at % len(data)])


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_entry(data: bytes) -> None:
    with pytest.raises(Corrupt):
        load(KEY, data)


@given(keys, keys, stored)
def test_an_entry_cannot_be_read_under_another_key(key: bytes, other: bytes, entry: Stored) -> None:
    if key != other:
        with pytest.raises(Corrupt):
            load(other, dump(key, entry))


@given(
    st.text(max_size=12), st.text(max_size=12), st.dictionaries(st.text(max_size=4), st.integers())
)
def test_one_tenants_entry_cannot_be_read_by_another(
    tenant: str, other: str, body: dict[str, int]
) -> None:
    ours, theirs = fingerprint(tenant, "r", "1", body), fingerprint(other, "r", "1", body)
    if tenant != other:
        assert ours[:8] != theirs[:8], "the partition tells tenants apart"
        assert ours[8:] != theirs[8:], "and so does the digest"
        with pytest.raises(Corrupt):
            load(theirs, dump(ours, ONE))


def test_long_answers_are_compressed() -> None:
    assert len(dump(KEY, ONE)) < 300
    assert load(KEY, dump(KEY, ONE)) == ONE


def test_a_later_version_is_not_read() -> None:
    data = dump(KEY, ONE)

    with pytest.raises(Corrupt, match=f"expected an entry of version {VERSION}"):
        load(KEY, bytes((VERSION + 1,)) + data[1:])


def test_usage_of_a_service_tier_is_read_back() -> None:
    reply = CachedReply(
        parts=(b"{}",),
        streamed=False,
        model="large",
        usage={"input": 3, "tier": "flex"},
        created_at=1.0,
        path="large:served",
    )

    assert load(KEY, dump(KEY, Stored(reply, 9.0, 0))).reply.usage == {"input": 3, "tier": "flex"}
