from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from tests.support.gateway_app import asking, serving
from tests.support.policies import policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def run(tmp_path):
    def call(*arguments, code=0):
        ledger = ("--ledger", f"sqlite:///{tmp_path}/ledger.db")
        result = CliRunner().invoke(app, ["keys", *arguments, *ledger])
        assert result.exit_code == code, result.output
        return result

    return call


def test_the_first_admin_key_is_printed_once(run):
    first, second = run("init"), run("init")

    assert first.stdout.strip().startswith("fg-")
    assert second.stdout == ""
    assert "there already" in second.stderr


def test_what_was_made_is_listed_without_the_key(run):
    run("init")
    key = run(
        "make", "shop", "--tenant", "web", "--scope", "auto", "--tag", "batch", "--expires", "30d",
        "--requests-per-minute", "60", "--budget", "50/month", "--budget", "2/day",
    ).stdout.strip()  # fmt: skip
    listed = run("list", "--json").stdout
    shop = json.loads(listed)[1]

    assert key not in listed
    assert (shop["name"], shop["tenant"], shop["state"]) == ("shop", "web", "active")
    assert shop["limits"]["requests_per_minute"] == 60
    assert [each["per"] for each in shop["limits"]["budget"]] == ["month", "day"]
    assert 29 * 86400 < shop["expires_at"] - time.time() <= 30 * 86400
    assert "shop" in run("list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("make", "shop", "--budget", "50"), "50/month"),
        (("make", "shop", "--budget", "50/week"), "--budget"),
        (("make", "shop", "--concurrent", "0"), "--concurrent"),
        (("make", "shop", "--expires", "soon"), "expected a duration"),
        (("make", "shop window"), "letters, digits"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(run, arguments, said):
    run("init")

    assert said in run(*arguments, code=2).stderr


def test_what_is_not_there_is_found_wanting(run):
    assert "frugal keys init" in run("list", code=1).stderr
    run("init")
    assert "no key is named" in run("revoke", "nobody", code=1).stderr


async def test_a_running_gateway_knows_new_keys_their_limits_and_their_end(run, tmp_path):
    run("init")
    async with ScriptedUpstream(Says("yes")) as upstream:
        text = policy({"m": remote(upstream.url)}, access={})
        async with serving(text, tmp_path) as gateway:
            key = run("make", "shop", "--requests-per-minute", "1").stdout.strip()
            await _until(gateway, key, 200)
            limited = await _ask(gateway, key)
            run("revoke", "shop")
            await _until(gateway, key, 401)

    assert limited.status_code == 429


async def _ask(gateway, key) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    url = "/v1/chat/completions"
    return await gateway.client.post(url, json=asking(model="m"), headers=headers)


async def _until(gateway, key, status):
    async with asyncio.timeout(20):
        found = 0
        while found != status:
            found = (await _ask(gateway, key)).status_code
