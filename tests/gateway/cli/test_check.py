from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import app
from tests.support.policies import two_tiers

FINE = """
version: 1
models:
  tiny: {provider: local, checkpoint: demo/tiny, price: {machine_hour_usd: 0.40}}
  large: {provider: openai, model: gpt-4o-mini, api_key: "${CHECK_TEST_KEY}"}
  free: {provider: vllm, base_url: http://h/v1, price: unknown_is_free}
routes:
  auto: {cascade: {tiers: [tiny, large]}, cache: {exact: {ttl: 24h}}}
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that checks a text and gives exit code and output."""
    monkeypatch.setenv("CHECK_TEST_KEY", "sk-never-shown")

    def run(text, *options):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        result = CliRunner().invoke(app, ["check", str(path), *options])
        assert "sk-never-shown" not in result.output
        return result.exit_code, result.stdout.replace(str(path), "p.yaml")

    return run


def test_sound_policy_exits_0_and_names_where_prices_come_from(check):
    code, output = check(FINE)

    assert code == 0
    assert "model tiny: local, price from policy" in output
    assert "model large: openai, price from genai-prices" in output
    assert "route auto: tiny > large, exact cache" in output
    assert output.endswith("p.yaml: nothing to mend\n")


@pytest.mark.parametrize(
    "confidence",
    [
        "learned",
        "logprob",
        "{kind: logprob, threshold: 0.7}",
        "{kind: agreement, with: free}",
        "router.confidence:LogprobScorer",
    ],
)
def test_every_kind_of_confidence_that_serves_is_sound(check, confidence):
    code, output = check(FINE.replace("[tiny, large]", f"[tiny, large], confidence: {confidence}"))

    assert (code, output.endswith("nothing to mend\n")) == (0, True), output


def test_faults_exit_1_one_a_line(check):
    code, output = check(FINE.replace("[tiny, large]", "[tiny, lage]").replace("24h", "24"))

    assert code == 1
    assert output == (
        "p.yaml:8:34: routes.auto.cascade.tiers[1]: "
        "no model is named 'lage' (did you mean 'large'?)\n"
    )


def test_model_without_a_known_price_is_refused_where_it_stands(check):
    code, output = check(FINE.replace("gpt-4o-mini", "my-own-finetune"))

    assert code == 1
    assert output.startswith("p.yaml:5:3: models.large: the price of 'my-own-finetune'")


def test_class_that_does_not_exist_is_refused(check):
    code, output = check(FINE.replace("provider: vllm", "provider: 'no_such_package:Provider'"))

    assert code == 1
    assert "models.free: cannot import no_such_package" in output


def test_bundle_that_serving_would_refuse_is_refused(check):
    cascade = {"confidence": "learned", "bundle": "nowhere"}
    text = two_tiers("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", cascade=cascade)
    code, output = check(text)

    assert code == 1
    assert "routes.auto.cascade.bundle" in output
    assert "expected a bundle made by `frugal train`" in output


def test_json_tells_the_same(check):
    code, output = check(FINE.replace("24h", "24x"), "--json")

    told = json.loads(output)
    assert (code, told["ok"]) == (1, False)
    assert told["problems"][0]["path"] == "routes.auto.cache.exact.ttl"
    assert told["problems"][0]["line"] == 8


def test_json_of_a_sound_policy_names_revisions(check):
    code, output = check(FINE, "--json", "--show")

    told = json.loads(output)
    assert (code, told["ok"], told["problems"]) == (0, True, [])
    assert len(told["routes"]["auto"]["revision"]) == 32
    assert told["policy"]["models"]["large"]["api_key"] == "***"


def test_show_prints_the_policy_with_its_secrets_masked(check):
    code, output = check(FINE, "--show")

    assert code == 0
    assert yaml.safe_load(output)["models"]["large"]["api_key"] == "***"


def test_schema_needs_no_policy():
    result = CliRunner().invoke(app, ["check", "--schema"])

    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "frugal policy"


@pytest.mark.parametrize("arguments", [[], ["/nonexistent/p.yaml"], ["/"], ["--nope"]])
def test_misuse_exits_2(arguments):
    assert CliRunner().invoke(app, ["check", *arguments]).exit_code == 2
