from __future__ import annotations

import json

import pytest

from bench.router_recorded import main

PRICES = {
    "models_usd_per_1M": {
        "tiny": {"input": 1, "output": 1},
        "other": {"input": 1, "output": 2},
        "big": {"input": 100, "output": 100},
    }
}


def rows(count):
    """Every fourth question: tiny is wrong and other differs; every eighth both err alike."""
    for i in range(count):
        right, wrong = f"#### {i}", f"#### {i + 1000}"
        answers = {
            "tiny": wrong if i % 4 == 0 else right,
            "other": wrong if i % 8 == 0 else right,
            "big": right,
        }
        for model, response in answers.items():
            yield {
                "query_id": f"q{i}",
                "model": model,
                "prompt": f"What is number {i}?",
                "response": response,
                "score": float(response == right),
                "prompt_tokens": 100,
                "completion_tokens": 50,
            }


@pytest.fixture
def data(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows(32))))
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    return tmp_path


def run(data, capsys, *options):
    arguments = ["--data", data, "--prices", data / "prices.json", "--large", "big", "--json"]
    assert main([str(argument) for argument in (*arguments, *options)]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_cascade_runs_through_the_gateway_and_is_accounted_to_the_token(data, capsys):
    report = run(data, capsys, "--small", "tiny", "--second", "other")

    ways = {row["way"]: row for row in report["rows"]}
    cascade = ways["cascade"]
    assert report["queries"] == 32
    assert ways["always small"]["accuracy"]["mean"] == 0.75
    assert ways["always large"]["accuracy"]["mean"] == 1
    # Both err alike on every eighth question: those are accepted. On as many they differ.
    assert cascade["accuracy"]["mean"] == 0.875
    assert cascade["against_large"]["mean"] == -0.125
    assert cascade["escalated"] == 0.125
    assert cascade["tokens"] == 150 * (2 + 0.125)
    per_request = (150 * 1 + 100 * 1 + 50 * 2 + 0.125 * 150 * 100) / 1e6
    assert cascade["usd_per_1k"]["mean"] == pytest.approx(per_request * 1000)


def test_the_pair_is_chosen_on_one_split_and_reported_on_another(data, capsys):
    report = run(data, capsys, "--max-loss", "0.2")

    assert report["split"] == "dev"
    assert {report["models"]["small"], report["models"]["second"]} == {"tiny", "other"}
    assert report["chosen"]["accuracy"] == 0.875


def test_choosing_and_reporting_on_one_split_is_refused(data, capsys):
    with pytest.raises(SystemExit):
        run(data, capsys, "--choose-on", "dev")

    assert "must differ" in capsys.readouterr().err


def test_a_table_for_people_has_every_way(data, capsys):
    arguments = ["--data", data, "--prices", data / "prices.json", "--large", "big"]

    main([str(argument) for argument in (*arguments, "--small", "tiny", "--second", "other")])

    shown = capsys.readouterr().out
    for way in ("always small", "always second", "always large", "cascade", "mix of small"):
        assert way in shown
