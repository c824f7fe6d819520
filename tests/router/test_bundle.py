"""A bundle comes back as it was written, and one that was tampered with does not come back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from router.bundle import BundleError, load_bundle, save_bundle
from router.state import State

ABOUT = {"route": "auto", "models": ["tiny", "large"]}


def learnt() -> State:
    trees = State(texts={"booster": "tree\nsplit=0.5\n"}, values={"rounds": 3})
    return State(
        values={"depth": 3},
        arrays={"weights": np.arange(6, dtype=np.float32).reshape(2, 3)},
        parts={"quality": State(parts={"trees": trees}), "beliefs": State(values={"a": [1, 2]})},
    )


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "auto"
    save_bundle(path, ABOUT, learnt())
    return path


def test_bundle_comes_back_as_it_was_written(bundle):
    found = load_bundle(bundle)

    assert found.about == ABOUT
    assert found.state.values == {"depth": 3}
    assert (found.state.arrays["weights"] == learnt().arrays["weights"]).all()
    trees = found.state.parts["quality"].parts["trees"]
    assert trees.texts == {"booster": "tree\nsplit=0.5\n"}
    assert trees.values == {"rounds": 3}
    assert found.state.parts["beliefs"].values == {"a": [1, 2]}


def test_array_that_lies_across_memory_comes_back_as_it_was(tmp_path):
    across = np.arange(12, dtype=np.float64).reshape(3, 4).T[::2]
    save_bundle(tmp_path / "b", ABOUT, State(arrays={"across": across}))

    assert (load_bundle(tmp_path / "b").state.arrays["across"] == across).all()


def test_same_learning_has_the_same_id(tmp_path):
    ids = {save_bundle(tmp_path / name, ABOUT, learnt()) for name in "ab"}

    assert ids == {load_bundle(tmp_path / "a").id}


def test_pinned_bundle_is_the_only_one_taken(bundle):
    known = load_bundle(bundle).id

    assert load_bundle(bundle, pinned=known).id == known
    with pytest.raises(BundleError, match="pins sha256:0000"):
        load_bundle(bundle, pinned="sha256:0000")


@pytest.mark.parametrize("name", ["values.json", "arrays.safetensors", "texts/0.txt"])
def test_changed_byte_is_noticed(bundle, name):
    file = bundle / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))

    with pytest.raises(BundleError, match="not those that were written"):
        load_bundle(bundle)


def test_changed_manifest_is_noticed(bundle):
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["about"]["route"] = "other"
    file.write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match="changed after it was written"):
        load_bundle(bundle)


def test_file_too_many_is_noticed(bundle):
    (bundle / "extra.pkl").write_bytes(b"")

    with pytest.raises(BundleError, match=r"extra\.pkl"):
        load_bundle(bundle)


def test_link_out_of_the_bundle_is_refused(bundle, tmp_path):
    outside = tmp_path / "outside.json"
    (bundle / "values.json").rename(outside)
    (bundle / "values.json").symlink_to(outside)

    with pytest.raises(BundleError, match="no plain file"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "other"}, "not the manifest"), ({"format": 9}, "train it again")],
)
def test_foreign_bundle_is_refused(bundle, change, message):
    file = bundle / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    with pytest.raises(BundleError, match=message):
        load_bundle(bundle)


def test_folder_without_a_bundle_says_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match="frugal train"):
        load_bundle(tmp_path / "nowhere")


def test_new_bundle_takes_the_place_of_the_old(bundle):
    save_bundle(bundle, {"route": "new"}, State())

    assert load_bundle(bundle).about == {"route": "new"}
    assert [each.name for each in bundle.parent.iterdir()] == ["auto"]


def test_folder_of_somebody_else_is_left_alone(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")

    with pytest.raises(BundleError, match="name another folder"):
        save_bundle(mine, ABOUT, learnt())
    assert (mine / "thesis.txt").exists()
