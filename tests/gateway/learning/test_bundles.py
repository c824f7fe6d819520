"""Bundles that travel by a ledger that several machines share."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gateway.learning.book import Book
from gateway.learning.bundles import Bundles
from gateway.money.databases import made
from router.bundle import BundleError, load_bundle, save_bundle
from router.state import State
from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server):
    url = server.new_database()
    made(url)
    return url


def bundle_at(folder, seed):
    state = State({"seed": seed}, {"row": np.random.default_rng(seed).random(50_000)})
    return save_bundle(folder, {"seed": seed}, state)


def test_a_bundle_is_fetched_once_by_a_machine_that_has_not_made_it(url, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    here, there = Bundles(url, tmp_path / "here"), Bundles(url, tmp_path / "there")
    path = tmp_path / "here" / "auto-3"
    identity = bundle_at(path, 1)
    here.publish("auto", path, identity, ())
    told = {"path": "/elsewhere/auto-3", "id": identity}
    found = [there.at(told) for _ in range(2)]

    assert found == [tmp_path / "there" / identity.replace(":", "-")] * 2
    assert load_bundle(found[0], pinned=identity).about["seed"] == 1
    assert here.at({**told, "path": str(path)}) == path
    assert caplog.text.count("was fetched from the ledger") == 1


def test_of_a_route_only_what_is_kept_stays(url, tmp_path):
    bundles = Bundles(url, tmp_path / "here")
    ids = [bundle_at(tmp_path / "here" / f"auto-{seed}", seed) for seed in range(3)]
    other = bundle_at(tmp_path / "here" / "other-1", 9)
    bundles.publish("other", tmp_path / "here" / "other-1", other, ())
    for seed, identity in enumerate(ids):
        bundles.publish("auto", tmp_path / "here" / f"auto-{seed}", identity, ids[:1])
    book = Book(url)
    there = [book.bundle(identity) is not None for identity in (*ids, other)]
    book.close()

    assert there == [True, False, True, True]


def test_a_bundle_that_nobody_has_put_there_is_told_by_its_id(url, tmp_path):
    told = {"path": str(tmp_path / "gone"), "id": "sha256:0"}

    with pytest.raises(BundleError, match=r"sha256:0 is neither in .*gone nor in the ledger"):
        Bundles(url, tmp_path / "there").at(told)
    with pytest.raises(BundleError, match="bundle sha256:0 is not there"):
        Bundles("sqlite:///one-machine.db", tmp_path / "there").at(told)
