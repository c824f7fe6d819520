"""`frugal plan`: as a table and as JSON, over a ledger; and the same over HTTP."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.gateway_app import serving
from tests.support.money import attempt, entry
from tests.support.policies import CHEAP, DEAR, one_model

USED = Usage(input=100, output=50)
URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def folder(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    line = entry("r1", model="large", cost_nano_usd=200_000, usage=USED)
    store.commit([line], [attempt("r1", model="large", usage=USED, cost_nano_usd=200_000)])
    store.close()
    (tmp_path / "old.yaml").write_text(one_model(URL, price=CHEAP))
    (tmp_path / "new.yaml").write_text(one_model(URL, price=DEAR))
    return tmp_path


def _run(folder, *options):
    names = [str(folder / "old.yaml"), str(folder / "new.yaml")]
    log = ["--log", f"sqlite:///{folder}/ledger.db", "--since", "2026-01-01"]
    return CliRunner().invoke(app, ["plan", *names, *log, *options])


def test_a_plan_tells_what_would_be_paid_and_what_changes(folder):
    told = json.loads(_run(folder, "--json").stdout)

    assert (told["requests"], told["replayed"], told["refused"]) == (1, 1, 0)
    assert (told["now_nano_usd"], told["low_nano_usd"], told["high_nano_usd"]) == (
        200_000, 2_000_000, 2_000_000,
    )  # fmt: skip
    assert "models.large.price.input_per_mtok_usd" in [c["path"] for c in told["changes"]]
    assert told["unknowable"]


def test_a_table_says_the_same(folder):
    said = _run(folder).stdout

    assert "0.002000" in said
    assert "not known: how good" in said


def test_what_is_missing_or_wrong_has_its_exit_code(folder):
    (folder / "wrong.yaml").write_text("version: 1\n")
    runner = CliRunner()
    missing = runner.invoke(app, ["plan", str(folder / "none.yaml"), str(folder / "new.yaml")])
    wrong = runner.invoke(app, ["plan", str(folder / "old.yaml"), str(folder / "wrong.yaml")])

    assert (missing.exit_code, wrong.exit_code) == (2, 1)


async def test_the_same_over_http(folder):
    path = folder / "old.yaml"
    async with serving(path.read_text(), folder, path=path) as gateway:
        text = (await gateway.admin.get("/admin/policy/text")).json()["text"]
        dear = text.replace('"input_per_mtok_usd": 1', '"input_per_mtok_usd": 10')
        body = {"text": dear, "since": "2026-01-01"}
        answer = await gateway.admin.post("/admin/policy/plan", json=body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["high_nano_usd"] == 1_100_000
