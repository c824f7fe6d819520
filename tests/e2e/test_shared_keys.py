"""Keys of machines that share a PostgreSQL or a Redis: made on one, revoked everywhere."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

SECRET = ("FRUGAL_KEYS_SECRET", "cd" * 32)
BOSS = "sk-boss-0123456789abcdef"
STATIC = [{"name": "boss", "key": BOSS, "scopes": ["admin"]}]


@pytest.fixture(scope="module")
def postgres():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as running:
        yield running


@pytest.fixture(params=["postgres", "redis", "limits"])
def storages(request, machines):
    """Return what two machines have in their policies: a ledger that is shared, or something else.

    Spools and ledgers in SQLite are each machine's own.
    """
    if request.param == "redis":
        url = request.getfixturevalue("redis").url
        return [_own(folder, redis=url) for folder in machines]
    url = request.getfixturevalue("postgres").new_database()
    if request.param == "limits":
        return [_own(folder, limits=url) for folder in machines]
    return [{"ledger": url, "spool": {"file": str(folder / "ledger.db")}} for folder in machines]


@pytest.fixture
def machines(tmp_path):
    """Return the folders of two machines."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv(*SECRET)


def _own(folder, **others):
    return {"ledger": f"sqlite:///{folder}/ledger.db", **others}


def _keys(folder, *arguments, code=0):
    command = ["keys", *arguments, "--policy", str(folder / "policy.yaml")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == code, done.stderr
    return done.stdout.split()[0] if done.stdout else done.stderr


def _text(folder, storage, url="http://127.0.0.1:1/v1"):
    access = {"anonymous": "never", "keys": STATIC}
    text = policy({"large": remote(url)}, access=access, storage=storage)
    (folder / "policy.yaml").write_text(text)
    return text


def _gateway(folder, storage, upstream):
    return serving(_text(folder, storage, upstream.url), folder, ledger=storage["ledger"])


async def _asked(gateway, key):
    headers = {"authorization": f"Bearer {key}"}
    return (await gateway.chat(model="large", headers=headers)).status_code


async def _until(gateway, key, status):
    """Ask until the answer is this one."""
    async with asyncio.timeout(120):
        while await _asked(gateway, key) != status:  # noqa: ASYNC110 - a gateway tells nobody
            await asyncio.sleep(0.05)


async def _by_admin(gateway, path, **body):
    headers = {"authorization": f"Bearer {BOSS}"}
    return await gateway.admin.post(f"/admin/keys{path}", json=body, headers=headers)


async def test_a_key_made_on_one_machine_opens_the_other_until_it_is_revoked_there(
    machines, storages
):
    one, other = machines
    async with ScriptedUpstream(Says("hi")) as upstream:
        for folder, storage in zip(machines, storages, strict=True):
            _text(folder, storage, upstream.url)
        admin = await asyncio.to_thread(_keys, one, "init")
        async with (
            _gateway(one, storages[0], upstream) as here,
            _gateway(other, storages[1], upstream) as there,
        ):
            await _until(there, admin, 403)  # an admin's key, which no model takes
            shop = await asyncio.to_thread(_keys, one, "make", "shop")
            await _until(there, shop, 200)
            await asyncio.to_thread(_keys, other, "revoke", "shop")
            await _until(here, shop, 401)
            assert await _asked(here, admin) == 403
            web = (await _by_admin(here, "", name="web")).json()["key"]
            await _until(there, web, 200)
            assert (await _by_admin(there, "/web/revoke")).status_code == 200
            await _until(here, web, 401)


async def test_a_gateway_starts_with_the_keys_it_knows_while_postgres_is_away(machines, caplog):
    one, _ = machines
    with PostgresServer() as server:
        storage = {"ledger": server.new_database(), "spool": {"file": str(one / "ledger.db")}}
        async with ScriptedUpstream(Says("hi")) as upstream:
            _text(one, storage, upstream.url)
            admin = await asyncio.to_thread(_keys, one, "init")
            server.kill()
            async with _gateway(one, storage, upstream) as gateway:
                assert await _asked(gateway, admin) == 403
    assert any("keys are not shared" in record.message for record in caplog.records)


@pytest.mark.parametrize("trouble", ["kill", "hang"])
async def test_while_redis_is_away_keys_stay_known_and_a_revocation_arrives_when_it_is_back(
    machines, redis, trouble
):
    one, other = machines
    storages = [_own(folder, redis=redis.url) for folder in machines]
    async with ScriptedUpstream(Says("hi")) as upstream:
        for folder, storage in zip(machines, storages, strict=True):
            _text(folder, storage, upstream.url)
        await asyncio.to_thread(_keys, one, "init")
        shop = await asyncio.to_thread(_keys, one, "make", "shop")
        web = await asyncio.to_thread(_keys, one, "make", "web")
        async with (
            _gateway(one, storages[0], upstream) as here,
            _gateway(other, storages[1], upstream) as there,
        ):
            await _until(there, shop, 200)
            getattr(redis, trouble)()
            revoked = await _by_admin(here, "/shop/revoke")
            await _until(here, shop, 401)
            assert [await _asked(there, key) for key in (shop, web)] == [200, 200]
            if trouble == "kill":
                redis.start()  # with nothing in it
            else:
                redis.resume()
            await _until(there, shop, 401)
            assert [await _asked(each, web) for each in (here, there)] == [200, 200]

    assert revoked.status_code == 200


async def test_where_the_secret_is_another_no_key_is_made_and_the_answer_says_what_to_change(
    machines, storages, monkeypatch
):
    one, other = machines
    _text(one, storages[0])
    await asyncio.to_thread(_keys, one, "init")
    await asyncio.to_thread(_keys, one, "make", "shop")
    monkeypatch.setenv("FRUGAL_KEYS_SECRET", "ef" * 32)
    async with (
        ScriptedUpstream(Says("hi")) as upstream,
        _gateway(other, storages[1], upstream) as there,
    ):
        made = await _by_admin(there, "", name="web")
        told = await asyncio.to_thread(_keys, other, "make", "web", code=1)
        alone = await _asked(there, BOSS)

    assert made.status_code == 409
    assert made.json()["error"]["code"] == "keys_secret_mismatch"
    for message in (made.json()["error"]["message"], told):
        assert "hashed with another secret; set FRUGAL_KEYS_SECRET" in message
    assert alone == 403


def test_the_list_shows_what_others_made(machines, storages):
    for folder, storage in zip(machines, storages, strict=True):
        _text(folder, storage)
    one, other = machines
    _keys(one, "init")
    _keys(one, "make", "shop")
    listed = CliRunner().invoke(
        app, ["keys", "list", "--json", "--policy", str(other / "policy.yaml")]
    )
    again = CliRunner().invoke(app, ["keys", "init", "--policy", str(other / "policy.yaml")])

    assert [row["name"] for row in json.loads(listed.stdout)] == ["admin", "shop"]
    assert "there already" in again.stderr


def test_a_redis_that_cannot_be_told_here_is_said_and_the_key_is_ended_on_this_machine(
    machines, monkeypatch
):
    one, _ = machines
    monkeypatch.delenv("NOWHERE_URL", raising=False)
    _text(one, _own(one, redis="${NOWHERE_URL}"))
    _keys(one, "init")
    _keys(one, "make", "shop")

    told = CliRunner().invoke(app, ["keys", "revoke", "shop", "--policy", str(one / "policy.yaml")])

    assert told.exit_code == 0
    assert "keys are not shared" in told.stderr
    assert "NOWHERE_URL" in told.stderr
