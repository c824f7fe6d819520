"""The bench of the engine, on a shape so small that only its mechanics are tested."""

from __future__ import annotations

import json

import pytest

from local_engine.bench import rows, shapes
from local_engine.bench.__main__ import main

NANO = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHAPES", {"100m": NANO})
    monkeypatch.setattr(rows, "STEPS", 4)
    monkeypatch.setattr(rows, "ROUNDS", 1)
    monkeypatch.setattr(rows, "ANSWER", 8)
    monkeypatch.setattr(rows, "REQUESTS", 60)


def test_every_row_is_measured_and_a_missed_target_shows_in_the_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--json", "--dtype", "fp32"])
    table = json.loads(capsys.readouterr().out)["rows"]

    found = {row["name"]: row for row in table}
    assert found["requests ended"]["value"] == 60
    assert found["pages lost"] == {**found["pages lost"], "value": 0, "is_met": True}
    assert found["decode, batch 1"]["value"] > 0
    assert found["guessing over not, repeating answer, batch 8"]["value"] > 0
    assert status == int(any(row["is_met"] is False for row in table))


def test_rows_are_printed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--only", "prefix", "--dtype", "fp32"])

    assert capsys.readouterr().out.count("\n") == 3
