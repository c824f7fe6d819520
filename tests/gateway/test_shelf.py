from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from cache.types import CachedReply
from gateway.shelf import Kept, Shelf


def kept(text=b"{}", expires_at=100.0, body=b"body"):
    reply = CachedReply(
        (text,), streamed=False, model="m", usage={"input": 3}, created_at=1.0, path="m:served"
    )
    return Kept(body, reply, expires_at)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replies"


def test_an_answer_is_read_back_as_it_was_put(path):
    Shelf(path).put(b"mark", kept(b"x" * 5_000), at=1.0)

    assert Shelf(path).get(b"mark", at=2.0) == kept(b"x" * 5_000)
    assert Shelf(path).get(b"other", at=2.0) is None


def test_what_is_too_old_is_forgotten(path):
    shelf = Shelf(path)
    shelf.put(b"mark", kept(expires_at=100.0), at=1.0)

    assert shelf.get(b"mark", at=99.9) is not None
    assert shelf.get(b"mark", at=100.0) is None


def test_asking_makes_no_file(path):
    assert Shelf(path).get(b"mark", at=1.0) is None
    assert not path.exists()


def test_it_stays_within_its_bound_and_the_newest_stay(path):
    shelf = Shelf(path, max_bytes=3_000)
    for number in range(201):
        # Bytes that cannot be compressed to nothing.
        text = number.to_bytes(2, "big") * 250
        shelf.put(f"{number}".encode(), kept(text, expires_at=1_000.0 + number), at=1.0)
    with closing(sqlite3.connect(path)) as connection:
        (size, count) = connection.execute(
            "SELECT sum(length(data)), count(*) FROM reply"
        ).fetchone()

    assert size <= 3_000
    assert 0 < count < 10
    assert shelf.get(b"200", at=2.0) is not None


def test_what_was_damaged_is_absent(path, caplog):
    shelf = Shelf(path)
    shelf.put(b"mark", kept(), at=1.0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE reply SET data = substr(data, 1, 30)")

    assert shelf.get(b"mark", at=2.0) is None
    assert "cannot be read again" in caplog.text


def test_an_answer_under_another_mark_is_none_of_its_own(path):
    shelf = Shelf(path)
    shelf.put(b"mark", kept(), at=1.0)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE reply SET mark = CAST('other' AS BLOB)")

    assert shelf.get(b"other", at=2.0) is None


def test_a_file_that_is_no_database_is_passed_over(path, caplog):
    path.write_bytes(b"not a database" * 100)
    shelf = Shelf(path)
    shelf.put(b"mark", kept(), at=1.0)

    assert shelf.get(b"mark", at=2.0) is None
    assert "will be forgotten at a restart" in caplog.text
