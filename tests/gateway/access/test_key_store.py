from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat

import pytest

from gateway.access.key_store import (
    SECRET_VARIABLE,
    Holder,
    KeyStore,
    KeyStoreError,
    OtherSecret,
    keys_path,
    shown,
)
from gateway.access.key_watch import KnownKeys, followed_keys
from gateway.access.keys import KeyRing
from gateway.errors import Unauthenticated
from policies.limits import Limits
from policies.schema import Access

NOW = 1_795_000_000.0


@pytest.fixture
def path(tmp_path):
    return keys_path(f"sqlite:///{tmp_path}/frugal.db")


@pytest.fixture
def store(path):
    made = KeyStore(path, {})
    made.init()
    return made


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


async def _find(store, path, key, *, time=None):
    async with followed_keys(KnownKeys(time or Time()), path, {}) as known:
        return known.find(key.encode())


def test_the_file_holds_no_key_and_is_for_its_owner_alone(store, path):
    key = store.make(Holder("shop"), now=NOW)
    secret = path.with_suffix(".secret")

    assert key.encode() not in path.read_bytes()
    assert [stat.S_IMODE(os.stat(each).st_mode) for each in (path, secret)] == [0o600, 0o600]
    assert key.startswith("fg-")
    assert len(key) == 46


async def test_a_key_stands_for_its_holder_with_all_it_may_do(store, path):
    limits = Limits.model_validate({"requests_per_minute": 5, "budget": {"usd": "1.5"}})
    holder = Holder("shop", "web", frozenset({"auto"}), frozenset({"batch"}), limits)
    key = store.make(holder, now=NOW)

    caller = await _find(store, path, key)

    assert (caller.key, caller.tenant) == ("shop", "web")
    assert (caller.scopes, caller.tags, caller.limits) == ({"auto"}, {"batch"}, limits)


@pytest.mark.parametrize(
    "spoil", [lambda k: k[:-1], lambda k: k + "x", str.swapcase, lambda k: k[:20]]
)
async def test_only_the_whole_key_is_known(store, path, spoil):
    key = store.make(Holder("shop"), now=NOW)

    assert await _find(store, path, spoil(key)) is None


async def test_a_key_ends_when_it_expires(store, path):
    time = Time()
    key = store.make(Holder("shop"), now=NOW, expires_at=NOW + 60)
    async with followed_keys(KnownKeys(time), path, {}) as known:
        before = known.find(key.encode())
        time.now += 60
        after = known.find(key.encode())

    assert before is not None
    assert after is None


async def test_a_revocation_reaches_a_running_gateway(store, path):
    key = store.make(Holder("shop"), now=NOW)
    async with followed_keys(KnownKeys(Time()), path, {}) as known:
        found = known.find(key.encode())
        store.revoke("shop", now=NOW)
        await _until(lambda: known.find(key.encode()) is None)

    assert found is not None


async def test_a_new_key_and_a_new_store_reach_a_running_gateway(path):
    async with followed_keys(KnownKeys(Time()), path, {}) as known:
        store = KeyStore(path, {})
        store.init()
        key = store.make(Holder("shop"), now=NOW)
        await _until(lambda: known.find(key.encode()) is not None)


async def _until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.01)


async def test_a_rotation_gives_a_new_key_and_lets_the_old_live_for_its_grace(store, path):
    time = Time()
    first = store.make(Holder("shop"), now=NOW)
    second = store.rotate("shop", now=NOW, grace_s=3600)
    third = store.rotate("shop", now=NOW + 1)
    async with followed_keys(KnownKeys(time), path, {}) as known:
        time.now += 2
        in_grace = [known.find(key.encode()) is not None for key in (first, second, third)]

    assert in_grace == [False, False, True]
    assert await _find(store, path, third, time=lambda: 4e9) is not None


async def test_a_file_that_turned_bad_leaves_the_keys_as_they_were(store, path, caplog):
    key = store.make(Holder("shop"), now=NOW)
    async with followed_keys(KnownKeys(Time()), path, {}) as known:
        other = path.with_name("other")
        other.write_bytes(b"nonsense" * 1000)
        other.replace(path)
        await _until(lambda: "stay as they were" in caplog.text)
        found = known.find(key.encode())

    assert found is not None


def test_names_are_taken_once_and_revoked_for_good(store):
    store.make(Holder("shop"), now=NOW)
    with pytest.raises(KeyStoreError, match="already"):
        store.make(Holder("shop"), now=NOW)
    store.revoke("shop", now=NOW)
    with pytest.raises(KeyStoreError, match="revoked"):
        store.rotate("shop", now=NOW)
    with pytest.raises(KeyStoreError, match="no key is named 'nobody'"):
        store.revoke("nobody", now=NOW)


def test_quotes_and_semicolons_in_names_are_only_letters(store):
    name = "x'); DROP TABLE api_key; --"
    store.make(Holder(name), now=NOW)

    assert [kept.holder.name for kept in store.kept()] == [name]


def test_the_secret_may_come_from_the_environment(tmp_path):
    env = {SECRET_VARIABLE: "ab" * 32}
    path = tmp_path / "shared.keys.db"
    store = KeyStore(path, env)
    store.init()
    store.make(Holder("shop"), now=NOW)

    assert not path.with_suffix(".secret").exists()
    with pytest.raises(KeyStoreError, match="hexadecimal"):
        KeyStore(path, {SECRET_VARIABLE: "xyz"}).make(Holder("b"), now=NOW)


def test_a_list_tells_everything_but_the_key(store):
    key = store.make(Holder("shop", limits=Limits(concurrent=2)), now=NOW, expires_at=NOW + 5)
    (kept,) = store.kept()
    told = shown(kept, NOW + 10)

    assert told["key"] == f"{key[:7]}…"
    assert (told["state"], told["limits"]) == ("expired", {"concurrent": 2})
    assert key not in str(told)
    assert kept.digest.hex() not in repr(kept)


def test_init_twice_changes_nothing(store, path):
    key = store.make(Holder("shop"), now=NOW)
    before = path.read_bytes()
    store.init()

    assert path.read_bytes() == before
    assert len(store.kept()) == 1
    assert key


def test_without_a_store_the_way_to_one_is_told(tmp_path):
    with pytest.raises(KeyStoreError, match="frugal keys init"):
        KeyStore(tmp_path / "none.keys.db", {}).kept()


async def test_keys_of_the_store_open_the_gateway_as_those_of_the_policy_do(store, path):
    key = store.make(Holder("shop", "web"), now=NOW)
    access = Access.model_validate({"keys": [{"name": "ci", "key": "sk-static"}]})
    async with followed_keys(KnownKeys(Time()), path, {}) as known:
        ring = KeyRing(access, known)

        assert ring.identify(f"Bearer {key}".encode(), "10.0.0.9", b"x").tenant == "web"
        assert ring.identify(b"Bearer sk-static", "10.0.0.9", b"x").key == "ci"
        with pytest.raises(Unauthenticated):
            ring.identify(b"Bearer fg-unknown", "10.0.0.9", b"x")


async def test_once_there_are_keys_a_wrong_one_is_not_taken_for_none(store, path):
    store.make(Holder("shop"), now=NOW)
    async with followed_keys(KnownKeys(Time()), path, {}) as known:
        ring = KeyRing(Access(anonymous="loopback"), known)
        with pytest.raises(Unauthenticated):
            ring.identify(b"Bearer any", "127.0.0.1", b"localhost")


def test_a_database_of_something_else_is_refused_in_words(tmp_path):
    path = tmp_path / "other.keys.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()

    with pytest.raises(KeyStoreError, match="no such table"):
        KeyStore(path, {}).kept()


async def test_keys_of_another_secret_are_told_and_no_key_is_added_to_them(store, path, caplog):
    key = store.make(Holder("shop"), now=NOW)
    env = {SECRET_VARIABLE: "ef" * 32}
    other = KeyStore(path, env)
    for add in (
        lambda: other.make(Holder("web"), now=NOW),
        lambda: other.rotate("shop", now=NOW),
        other.init,
    ):
        with pytest.raises(OtherSecret, match="another secret; set FRUGAL_KEYS_SECRET"):
            add()
    async with followed_keys(KnownKeys(Time()), path, env) as known:
        found = known.find(key.encode())
    other.revoke("shop", now=NOW)

    assert found is None
    assert "hashed with another secret" in caplog.text
    assert [kept.state(NOW) for kept in store.kept()] == ["revoked"]


async def test_a_store_of_before_there_were_checks_is_used_as_it_is(store, path):
    key = store.make(Holder("shop"), now=NOW)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE hashing")
    again = store.make(Holder("web"), now=NOW)
    store.init()

    assert (await _find(store, path, key)).key == "shop"
    assert (await _find(store, path, again)).key == "web"
