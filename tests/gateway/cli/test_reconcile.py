from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.rollup import Rollup
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


@pytest.fixture
def tiered(tmp_path):
    """A day of one model: standard calls, a flex one, and cache writes of both kinds."""
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    told = {"provider": "openai", "model": "mini"}
    used = {
        "a": (Usage(input=100, cache_write=30, cache_write_1h=70, output=10), 4),
        "b": (Usage(input=200, output=20), 2),
        "c": (Usage(input=1000, output=100, tier="flex"), 1),
    }
    store.commit(
        [entry(name, started_at_us=DAY_US + 5) for name in used],
        [
            attempt(name, usage=usage, cost_nano_usd=usd * 10**9, lower_nano_usd=usd * 10**9,
                    upper_nano_usd=usd * 10**9, **told)
            for name, (usage, usd) in used.items()
        ],
    )  # fmt: skip
    store.close()
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


BY_TIER = "date,model,service_tier,input_tokens,output_tokens,usd\n"
STANDARD = "2026-11-01,gpt-5-mini,default,400,30,6\n"
FLEX = "2026-11-01,gpt-5-mini,flex,1000,100,1\n"


@pytest.mark.parametrize("is_summed", [False, True])
def test_tiers_are_compared_with_the_same_tier(tiered, is_summed):
    rollup = Rollup(tiered / "ledger.db")
    while is_summed and rollup.step():
        pass
    agrees = _run(tiered, BY_TIER + STANDARD + FLEX)
    swapped = _run(tiered, BY_TIER + STANDARD.replace("default", "priority") + FLEX)

    assert agrees[0] == 0
    assert [(line["tier"], line["verdict"]) for line in agrees[1]] == [
        ("", "equal"), ("flex", "equal"),
    ]  # fmt: skip
    assert [(line["tier"], line["verdict"]) for line in swapped[1]] == [
        ("", "differs"), ("flex", "equal"), ("priority", "differs"),
    ]  # fmt: skip


def test_an_invoice_that_tells_no_tiers_is_compared_with_all_of_them(tiered):
    code, (line,) = _run(tiered, "date,model,output_tokens,usd\n2026-11-01,gpt-5-mini,130,7\n")

    assert (code, line["tier"], line["verdict"]) == (0, None, "equal")


def test_dollars_over_all_tiers_stand_beside_tokens_by_tier(tiered):
    costs = "2026-11-01,gpt-5-mini,,,,7\n"
    tokens = STANDARD.replace(",6", ",") + FLEX.replace(",1\n", ",\n")
    code, lines = _run(tiered, BY_TIER + costs + tokens)
    short = _run(tiered, BY_TIER + costs.replace("7", "6") + tokens)

    assert code == 0
    assert [line["tier"] for line in lines] == [None, "", "flex"]
    assert [line["verdict"] for line in short[1]] == ["differs", "equal", "equal"]


def test_beside_named_tiers_a_blank_is_the_standard_one(tiered):
    code, lines = _run(tiered, BY_TIER + STANDARD.replace("default", "") + FLEX)

    assert code == 0
    assert [line["tier"] for line in lines] == ["", "flex"]


WRITES = "date,model,input_tokens,cache_write_5m_tokens,cache_write_1h_tokens\n"


def test_writes_for_an_hour_are_compared_apart_where_they_are_told_apart(tiered):
    apart = _run(tiered, WRITES + "2026-11-01,gpt-5-mini,1300,30,70\n")
    swapped = _run(tiered, WRITES + "2026-11-01,gpt-5-mini,1300,70,30\n")
    together = _run(
        tiered, "date,model,input_tokens,cache_write_tokens\n2026-11-01,gpt-5-mini,1300,100\n"
    )
    mixed = _run(
        tiered,
        WRITES.strip() + ",cache_write_tokens\n2026-11-01,gpt-5-mini,1300,,70,\n"
        "2026-11-01,gpt-5-mini,0,,,30\n",
    )

    assert (apart[0], swapped[0], together[0], mixed[0]) == (0, 1, 0, 0)
    assert swapped[1][0]["difference"]["tokens"] == {"cache_write_5m": 40, "cache_write_1h": -40}


def test_the_table_names_the_tiers(tiered):
    (tiered / "invoice.csv").write_text(BY_TIER + STANDARD)
    done = CliRunner().invoke(app, [
        "reconcile", "--invoice", str(tiered / "invoice.csv"), "--all",
        "--ledger", f"sqlite:///{tiered}/ledger.db", "--policy", str(tiered / "policy.yaml"),
    ])  # fmt: skip

    assert done.exit_code == 1
    assert "service tier" in done.stdout
    assert "standard" in done.stdout
    assert "flex" in done.stdout
