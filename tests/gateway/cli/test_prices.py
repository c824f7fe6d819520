from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.price_files import read_price_file

POLICY = """
version: 1
models:
  mini:
    provider: openai
    model: gpt-4o-mini
    api_key: k
    price: {input_per_mtok_usd: 0.10, output_per_mtok_usd: 0.6}
  listed: {provider: openai, model: gpt-4o, api_key: k}
  tiny: {provider: openai, base_url: "http://127.0.0.1:9/v1", price: {machine_hour_usd: 0.4}}
"""
MAP = {
    "sample_spec": {"input_cost_per_token": 0},
    "gpt-x": {
        "litellm_provider": "openai", "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08,
        "input_cost_per_token_batches": 7.5e-08, "max_tokens": 10,
    },
    "azure/gpt-x": {"litellm_provider": "azure", "input_cost_per_token": 1e-06,
                    "output_cost_per_token": 1e-06},
    "azure/dall-e": {"litellm_provider": "azure", "output_cost_per_image": 0.04},
}  # fmt: skip


def _run(*arguments):
    return CliRunner().invoke(app, ["prices", *map(str, arguments)])


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_a_policys_prices_are_listed_with_whose_word_they_are(policy):
    told = json.loads(_run("list", "--policy", policy, "--json").stdout)
    shown = _run("list", "--policy", policy, "--match", "t*").stdout

    assert told["mini"]["usd_per_mtok"]["input"] == "0.1"
    assert told["mini"]["source"] == "policy"
    assert told["listed"]["source"].startswith("genai-prices")
    assert told["tiny"]["machine_hour_usd"] == "0.4"
    assert "tiny" in shown
    assert "mini" not in shown


def test_the_table_is_listed_by_provider_and_pattern_as_of_a_day():
    told = json.loads(
        _run(
            "list", "--provider", "openai", "--match", "gpt-4o-mini", "--at", "2026-01-01", "--json"
        ).stdout
    )

    assert list(told) == ["openai/gpt-4o-mini"]
    assert told["openai/gpt-4o-mini"]["usd_per_mtok"]["input"] == "0.15"


def test_a_model_is_shown_whoever_sells_it_and_an_unknown_one_with_the_nearest():
    known, unknown = _run("show", "gpt-4o-mini"), _run("show", "gpt-4o-minni")

    assert "openai/gpt-4o-mini" in json.loads(known.stdout)
    assert unknown.exit_code == 2
    assert "nearest: gpt-4o-mini" in unknown.stderr


def test_a_policy_is_compared_with_the_table(policy):
    done = _run("diff", "--policy", policy, "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["mini"]["input"] == ["0.15", "0.1"]
    assert "listed" not in json.loads(done.stdout)


def test_two_days_of_the_table_are_compared():
    same = _run("diff", "--from", "2026-01-01", "--to", "2026-01-01")

    assert (same.exit_code, same.stdout) == (0, "no price differs\n")
    assert _run("diff").exit_code == 2
    assert _run("diff", "--from", "soon").exit_code == 2


def test_litellms_map_becomes_a_price_file_and_what_is_lost_is_told(tmp_path, policy):
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    done = _run("import", tmp_path / "map.json", "--out", tmp_path / "prices.json")
    file = read_price_file(tmp_path / "prices.json")

    assert done.exit_code == 0
    assert {name: f"{amount:f}" for name, amount in file.amounts["gpt-x"].items()} == {
        "input_per_mtok_usd": "0.15", "output_per_mtok_usd": "0.6",
        "cached_input_per_mtok_usd": "0.075",
    }  # fmt: skip
    assert "left out: azure/gpt-x: another model has that name already" in done.stderr
    assert "left out: azure/dall-e: not priced by the token" in done.stderr
    assert "without: gpt-x: input_cost_per_token_batches" in done.stderr


def test_one_provider_of_a_map_may_be_chosen(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    done = _run("import", tmp_path / "map.json", "--provider", "azure")

    assert json.loads(done.stdout)["models"]["gpt-x"]["input_per_mtok_usd"] == "1"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"m": {"input_cost_per_token": "x", "output_cost_per_token": 1}}']
)
def test_what_is_no_price_map_is_refused(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    done = _run("import", tmp_path / "map.json")

    assert done.exit_code == 1
    assert str(tmp_path / "map.json") in done.stderr
