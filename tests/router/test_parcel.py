"""A bundle that travels in one piece arrives as it left, or not at all."""

from __future__ import annotations

import zlib

import msgspec
import numpy as np
import pytest

from router.bundle import BundleError, load_bundle, save_bundle
from router.parcel import packed, unpacked
from router.state import State


@pytest.fixture
def bundle(tmp_path):
    state = State({"one": 1}, {"row": np.arange(3.0)}, {"tree": "yes"})
    identity = save_bundle(tmp_path / "bundle", {"made": "here"}, state)
    return packed(tmp_path / "bundle", identity), identity


def changed(content, name, data):
    files = msgspec.msgpack.decode(zlib.decompress(content))
    return zlib.compress(msgspec.msgpack.encode({**files, name: data}))


def test_what_arrives_is_what_was_sent(bundle, tmp_path):
    content, identity = bundle
    for _ in range(2):  # as two processes of one machine do
        unpacked(content, tmp_path / "there", identity)
    there = load_bundle(tmp_path / "there", pinned=identity)

    assert there.about["made"] == "here"
    assert there.state.texts == {"tree": "yes"}
    assert {each.name for each in tmp_path.iterdir()} == {"bundle", "there"}


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda content: content[:-4],
        lambda content: b"nothing of the kind",
        lambda content: zlib.compress(b"\x01"),
        lambda content: changed(content, "values.json", b"{}"),
        lambda content: changed(content, "texts/1.txt", b"more"),
        lambda content: changed(content, "../outside", b"x"),
        lambda content: changed(content, "texts/../../outside", b"x"),
    ],
)
def test_what_was_changed_on_the_way_is_not_written(bundle, tmp_path, spoilt):
    content, identity = bundle

    with pytest.raises(BundleError):
        unpacked(spoilt(content), tmp_path / "there", identity)
    assert {each.name for each in tmp_path.iterdir()} == {"bundle"}


def test_another_bundle_than_the_one_asked_for_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match="pins"):
        unpacked(bundle[0], tmp_path / "there", "sha256:" + "0" * 64)
    with pytest.raises(BundleError, match="pins"):
        packed(tmp_path / "bundle", "sha256:" + "0" * 64)
