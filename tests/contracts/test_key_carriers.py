"""What every carrier of keys promises, over all of them; the servers are real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from gateway.access.carriers.redis import NAME, RedisCarrier
from gateway.access.key_exchange import Carrier, KeyExchange, carrier_at, store_of_all
from gateway.access.key_store import Holder, KeysApart, KeyStore, OtherSecret
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer

NOW = 1_795_000_000.0
SECRET = {"FRUGAL_KEYS_SECRET": "cd" * 32}
OTHER = {"FRUGAL_KEYS_SECRET": "ef" * 32}


@pytest.fixture(scope="module")
def database():
    with PostgresServer() as running:
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["postgres", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("database").new_database()
        return found
    server: RedisServer = request.getfixturevalue("redis")
    server.flush()
    return server.url


def patient(url: str) -> Carrier:
    """Return the carrier at a URL, which takes no server for away that is only late."""
    return RedisCarrier(url, within_s=60) if url.startswith("redis") else carrier_at(url)


class Machine:
    """A store of keys, and its exchange with what all know."""

    def __init__(self, folder: Path, url: str, env: dict[str, str] = SECRET) -> None:
        folder.mkdir()
        self.path = folder / "ledger.keys.db"
        self.store = KeyStore(self.path, env)
        self.exchange = KeyExchange(patient(url), self.path, env)

    def share(self) -> None:
        self.exchange.run()

    def begin(self, *names: str) -> Machine:
        self.store.init()
        for name in names:
            self.store.make(Holder(name), now=NOW)
        self.share()
        return self


@pytest.fixture
def machine(tmp_path: Path, url: str) -> Iterator[type[Machine]]:
    made: list[Machine] = []

    def make(name: str, env: dict[str, str] = SECRET) -> Machine:
        made.append(Machine(tmp_path / name, url, env))
        return made[-1]

    yield make
    for each in made:
        each.exchange.close()


def test_what_was_said_on_each_comes_together_in_any_order(machine):
    one, other = machine("one").begin("shop"), machine("other")
    other.share()
    other.store.rotate("shop", now=NOW + 1, grace_s=60)
    one.store.revoke("shop", now=NOW + 2)
    for each in (other, one, other):
        each.share()

    assert one.store.copy() == other.store.copy()
    assert {kept.state(NOW + 3) for kept in other.store.kept()} == {"revoked"}
    assert len(other.store.kept()) == 2


def test_machines_that_share_at_the_same_moment_lose_nothing(machine):
    names = [f"m{number}" for number in range(6)]
    machines = [machine(name) for name in names]
    for each, name in zip(machines, names, strict=True):
        each.store.init()
        each.store.make(Holder(name), now=NOW)
    threads = [Thread(target=each.share) for each in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in machines:
        each.share()

    assert [sorted(each.store.copy().holders) for each in machines] == [names] * 6


def test_machines_with_different_secrets_are_told_apart(machine):
    machine("one").begin("shop")
    other, bare = machine("other", OTHER), machine("bare", {})

    with pytest.raises(OtherSecret, match="another secret; set FRUGAL_KEYS_SECRET"):
        other.share()
    with pytest.raises(OtherSecret, match="has keys; set FRUGAL_KEYS_SECRET"):
        bare.share()
    assert not other.store.exists
    assert not bare.store.exists


def test_with_another_secret_no_key_is_made_but_one_is_ended(machine, url):
    machine("one").begin("shop")
    other = machine("other", OTHER)
    other.store.init()
    other.store.make(Holder("own"), now=NOW)
    told: list[str] = []

    with (
        pytest.raises(OtherSecret),
        store_of_all(other.path, OTHER, url, tell=told.append),
    ):
        pytest.fail("nothing may be made here")
    with store_of_all(other.path, OTHER, url, tell=told.append, makes=False) as store:
        store.revoke("own", now=NOW)

    assert [kept.state(NOW) for kept in other.store.kept()] == ["revoked"]
    assert "another secret" in told[0]


def test_nothing_is_made_where_nobody_has_keys(machine):
    alone = machine("one")
    alone.share()

    assert not alone.store.exists


def test_an_exchange_without_news_writes_nothing(machine):
    one = machine("one").begin("shop")
    before = one.path.read_bytes()
    for _ in range(3):
        one.share()

    assert one.path.read_bytes() == before


@pytest.mark.parametrize(
    "away", ["postgresql://me:hidden@127.0.0.1:1/db", "redis://me:hidden@127.0.0.1:1/0"]
)
def test_a_carrier_that_is_away_is_told_without_its_password(tmp_path, away):
    lonely = Machine(tmp_path / "one", away)
    with pytest.raises(KeysApart) as told:
        lonely.begin("shop")
    lonely.exchange.close()

    assert "hidden" not in str(told.value)


def test_a_carrier_is_tried_no_more_once_it_is_closed(machine):
    one = machine("one").begin("shop")
    one.store.make(Holder("web"), now=NOW)
    one.exchange.close()
    one.share()
    other = machine("other")
    other.share()

    assert sorted(other.store.copy().holders) == ["shop"]


class TestRedis:
    """What is Redis' own."""

    @pytest.fixture
    def url(self, redis: RedisServer) -> str:
        redis.flush()
        return redis.url

    def test_that_forgot_everything_is_told_again_revocations_too(self, machine, redis):
        one, other = machine("one").begin("shop", "web"), machine("other")
        other.share()
        one.store.revoke("shop", now=NOW + 1)
        one.share()
        redis.flush()
        other.share()  # which has not heard of the revocation yet
        one.share()
        other.share()

        assert one.store.copy() == other.store.copy()
        assert other.store.copy().holders["shop"].revoked_at == NOW + 1

    def test_without_the_secret_nobody_can_give_a_right(self, machine, redis):
        one, other = machine("one").begin("shop"), machine("other")
        written = redis.say("GETRANGE", NAME, "0", "-1").partition(b"\r\n")[2][:-2]
        raised = written.replace(b'"[]"', b'"[\\"admin\\"]"', 1)
        redis.say("SET", NAME, raised)
        one.store.make(Holder("web"), now=NOW)

        assert raised != written
        for each in (one, other):
            with pytest.raises(OtherSecret):
                each.share()
        assert {row.scopes for row in one.store.copy().holders.values()} == {"[]"}
        assert not other.store.exists

    def test_holds_neither_key_nor_secret(self, machine, redis):
        one = machine("one")
        one.store.init()
        key = one.store.make(Holder("shop"), now=NOW)
        one.share()
        kept = redis.say("GETRANGE", NAME, "0", "-1")

        assert b"shop" in kept
        assert key.encode() not in kept
        assert bytes.fromhex(SECRET["FRUGAL_KEYS_SECRET"]) not in kept
