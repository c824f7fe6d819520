"""Keys of machines with one ledger in PostgreSQL: made on one, known on all, revoked everywhere."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from gateway.access.key_exchange import KeyExchange, share_keys
from gateway.access.key_store import Holder, KeysApart, KeyStore, KeyStoreError
from gateway.cli.main import app
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.postgres_server import PostgresServer
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

NOW = 1_795_000_000.0
SECRET = {"FRUGAL_KEYS_SECRET": "cd" * 32}


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server):
    return server.new_database()


@pytest.fixture
def machines(tmp_path):
    """Return the folders of two machines."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    return folders


def _keys(folder, *arguments):
    command = ["keys", *arguments, "--policy", str(folder / "policy.yaml")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    return done.stdout.split()[0] if done.stdout else ""


def _text(folder, upstream, url):
    storage = {"ledger": url, "spool": {"file": str(folder / "ledger.db")}}
    models = {"large": remote(upstream.url)}
    text = policy(models, access={"anonymous": "never"}, storage=storage)
    (folder / "policy.yaml").write_text(text)
    return text


async def _asked(gateway, key):
    headers = {"authorization": f"Bearer {key}"}
    return (await gateway.chat(model="large", headers=headers)).status_code


async def _until(gateway, key, status):
    """Ask until the answer is this one."""
    async with asyncio.timeout(20):
        while await _asked(gateway, key) != status:  # noqa: ASYNC110 - a gateway tells nobody
            await asyncio.sleep(0.05)


async def test_a_key_made_on_one_machine_opens_the_other_until_it_is_revoked_there(
    machines, url, monkeypatch
):
    monkeypatch.setenv(*next(iter(SECRET.items())))
    one, other = machines
    async with ScriptedUpstream(Says("hi")) as upstream:
        texts = [_text(folder, upstream, url) for folder in machines]
        admin = await asyncio.to_thread(_keys, one, "init")
        async with (
            serving(texts[0], one, ledger=url) as here,
            serving(texts[1], other, ledger=url) as there,
        ):
            await _until(there, admin, 403)  # an admin's key, which no model takes
            shop = await asyncio.to_thread(_keys, one, "make", "shop")
            await _until(there, shop, 200)
            await asyncio.to_thread(_keys, other, "revoke", "shop")
            await _until(here, shop, 401)
            assert await _asked(here, admin) == 403


async def test_a_gateway_starts_with_the_keys_it_knows_while_postgres_is_away(
    machines, monkeypatch, caplog
):
    monkeypatch.setenv(*next(iter(SECRET.items())))
    one, _ = machines
    with PostgresServer() as server:
        url = server.new_database()
        async with ScriptedUpstream(Says("hi")) as upstream:
            text = _text(one, upstream, url)
            admin = await asyncio.to_thread(_keys, one, "init")
            server.kill()
            async with serving(text, one, ledger=url) as gateway:
                assert await _asked(gateway, admin) == 403
    assert any("keys are not shared" in record.message for record in caplog.records)


def _machine(folder, url, env=SECRET):
    path = folder / "ledger.keys.db"
    return KeyStore(path, env), lambda: share_keys(url, path, env)


def test_what_was_said_on_each_comes_together_in_any_order(machines, url):
    (one, share_one), (other, share_other) = (_machine(folder, url) for folder in machines)
    one.init()
    one.make(Holder("shop"), now=NOW)
    share_one()
    share_other()
    other.rotate("shop", now=NOW + 1, grace_s=60)
    one.revoke("shop", now=NOW + 2)
    for share in (share_other, share_one, share_other):
        share()

    assert one.copy() == other.copy()
    assert {kept.state(NOW + 3) for kept in other.kept()} == {"revoked"}
    assert len(other.kept()) == 2


def test_machines_with_different_secrets_are_told_apart(machines, url):
    one, share_one = _machine(machines[0], url)
    one.init()
    one.make(Holder("shop"), now=NOW)
    share_one()
    other, share_other = _machine(machines[1], url, {"FRUGAL_KEYS_SECRET": "ef" * 32})
    bare, share_bare = _machine(machines[1], url, {})

    with pytest.raises(KeyStoreError, match="another secret; set FRUGAL_KEYS_SECRET"):
        share_other()
    with pytest.raises(KeyStoreError, match="has keys; set FRUGAL_KEYS_SECRET"):
        share_bare()
    assert not other.exists
    assert not bare.exists


def test_nothing_is_made_where_nobody_has_keys(machines, url):
    store, share = _machine(machines[0], url)
    share()

    assert not store.exists


def test_a_postgres_that_is_away_is_told_without_its_password(machines):
    with pytest.raises(KeysApart) as told:
        share_keys("postgresql://me:hidden@127.0.0.1:1/db", machines[0] / "k.keys.db", SECRET)

    assert "hidden" not in str(told.value)


def test_an_exchange_without_news_writes_nothing(machines, url):
    store, share = _machine(machines[0], url)
    store.init()
    store.make(Holder("shop"), now=NOW)
    share()
    path = machines[0] / "ledger.keys.db"
    before = path.read_bytes()
    exchange = KeyExchange(url, path, SECRET)
    for _ in range(3):
        exchange.run()
    exchange.close()

    assert path.read_bytes() == before


def test_the_list_shows_what_others_made(machines, url, monkeypatch):
    monkeypatch.setenv(*next(iter(SECRET.items())))
    for folder in machines:
        storage = {"ledger": url, "spool": {"file": str(folder / "ledger.db")}}
        text = policy({"large": remote("http://127.0.0.1:1/v1")}, storage=storage)
        (folder / "policy.yaml").write_text(text)
    one, other = machines
    _keys(one, "init")
    _keys(one, "make", "shop")
    listed = CliRunner().invoke(
        app, ["keys", "list", "--json", "--policy", str(other / "policy.yaml")]
    )
    again = CliRunner().invoke(app, ["keys", "init", "--policy", str(other / "policy.yaml")])

    assert [row["name"] for row in json.loads(listed.stdout)] == ["admin", "shop"]
    assert "there already" in again.stderr
