from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry

DAY_US = 1_793_491_200_000_000  # 2026-11-01
POLICY = """
version: 1
models:
  mini: {provider: openai, model: gpt-5-mini, api_key: "${NOT_SET}"}
"""


@pytest.fixture
def ledger(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    counted = Usage(input=100, cached_input=20, output=30, reasoning=10)
    guessed = Usage(input=50, output=5, estimated=True)
    told = {"provider": "openai", "model": "mini"}
    store.commit(
        [entry(name, started_at_us=DAY_US + 5) for name in "abc"]
        + [entry("d", started_at_us=DAY_US + 86_400_000_000)],
        [
            attempt("a", usage=counted, cost_nano_usd=500_000_000, lower_nano_usd=500_000_000,
                    upper_nano_usd=500_000_000, **told),
            attempt("b", usage=counted, cost_nano_usd=500_000_000, lower_nano_usd=500_000_000,
                    upper_nano_usd=500_000_000, purpose="audit", payer="gateway", **told),
            attempt("c", usage=Usage(input=9), provider="local", model="tiny"),
            attempt("d", usage=guessed, cost_nano_usd=200_000_000, lower_nano_usd=100_000_000,
                    upper_nano_usd=900_000_000, **told),
        ],
    )  # fmt: skip
    store.close()
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def _run(folder, text, *more):
    (folder / "invoice.csv").write_text(text)
    command = ["reconcile", "--invoice", str(folder / "invoice.csv"), "--json"]
    command += [
        "--ledger",
        f"sqlite:///{folder}/ledger.db",
        "--policy",
        str(folder / "policy.yaml"),
    ]
    done = CliRunner().invoke(app, [*command, *more])
    return done.exit_code, json.loads(done.stdout)["lines"] if done.stdout else done.stderr


HEAD = "date,model,input_tokens,cached_input_tokens,output_tokens,usd\n"


def test_an_invoice_that_agrees_to_the_token_is_equal_and_bounds_explain_the_rest(ledger):
    text = HEAD + "2026-11-01,gpt-5-mini-2025-08-07,200,40,80,1.00\n"
    code, lines = _run(ledger, text + "2026-11-02,gpt-5-mini,70,0,5,0.85\n")

    assert code == 0
    assert [line["verdict"] for line in lines] == ["equal", "within bounds"]
    assert lines[1]["difference"] == {"tokens": {"input": 20}, "usd": "0.650000000"}


def test_a_token_too_many_a_dollar_beyond_the_bounds_and_a_day_left_out_are_found(ledger):
    tokens = _run(ledger, HEAD + "2026-11-01,gpt-5-mini,201,40,80,1.00\n")
    beyond = _run(ledger, "date,model,usd\n2026-11-02,gpt-5-mini,0.92\n")
    left_out = _run(ledger, "date,model,usd\n2026-10-31,gpt-5-mini,0\n2026-11-02,gpt-5-mini,0.2\n")

    assert (tokens[0], beyond[0], left_out[0]) == (1, 1, 1)
    assert tokens[1][0]["difference"]["tokens"] == {"input": 1}
    assert beyond[1][0]["difference"]["usd"] == "0.720000000"
    assert [line["verdict"] for line in left_out[1]] == ["equal", "differs", "equal"]


def test_without_a_column_for_it_cached_input_counts_as_input(ledger):
    code, _ = _run(ledger, "date,model,input_tokens\n2026-11-01,gpt-5-mini,240\n")

    assert code == 0


def test_a_model_that_the_ledger_never_called_differs(ledger):
    text = "date,model,usd\n2026-11-01,gpt-5-mini,1\n2026-11-01,gpt-4,3\n"
    code, lines = _run(ledger, text)

    assert code == 1
    assert [(line["model"], line["verdict"]) for line in lines] == [
        ("gpt-4", "differs"), ("gpt-5-mini", "equal"),
    ]  # fmt: skip


def test_misuse_is_told_and_exits_2(ledger):
    wrong = _run(ledger, "date,model,usd\n2026-11-01,m,1\n", "--tolerance-usd", "much")
    empty = _run(ledger, "nothing\n")

    assert wrong == (2, "--tolerance-usd: expected dollars such as 0.01, found 'much'\n")
    assert empty[0] == 2
    assert "no line tells" in empty[1]


def test_the_table_shows_what_differs(ledger):
    (ledger / "invoice.csv").write_text("date,model,input_tokens\n2026-11-01,mini,1\n")
    done = CliRunner().invoke(app, [
        "reconcile", "--invoice", str(ledger / "invoice.csv"),
        "--ledger", f"sqlite:///{ledger}/ledger.db",
    ])  # fmt: skip

    assert done.exit_code == 1
    assert "input -239" in done.stdout
    assert "1 lines of a model and a day: 1 differs" in done.stdout
