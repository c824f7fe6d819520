from __future__ import annotations

import json

from typer.testing import CliRunner

from gateway.cli.main import app


def test_quality_of_quantizations_is_told_by_the_bench():
    result = CliRunner().invoke(app, ["engine", "bench", "--quality", "--questions", "2",
                                      "--checkpoint", "demo/tiny", "--json"])  # fmt: skip

    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["scheme"] for row in rows][:2] == ["fp32", "int8"]
    assert all(row["perplexity"] >= 1 for row in rows)


def test_memory_for_keys_and_values_must_be_a_size():
    result = CliRunner().invoke(app, ["engine", "serve", "demo/tiny", "--kv-bytes", "much"])

    assert result.exit_code == 2
    assert "expected a size such as 512KiB or 10MB, found 'much'" in " ".join(
        result.stderr.replace("│", " ").split()
    )


def test_what_serve_takes_reaches_the_engine(tmp_path):
    taken = ["--dtype", "float32", "--max-queue", "3", "--max-context", "100", "--long", "--draft",
             "demo/tiny", "--guesses", "2", "--adapters", str(tmp_path),
             "--prefill-chunk", "64"]  # fmt: skip
    missing = CliRunner().invoke(app, ["engine", "serve", str(tmp_path / "none"), *taken])
    wrong = CliRunner().invoke(app, ["engine", "serve", "demo/tiny", "--dtype", "float8"])

    assert missing.exit_code == 1
    assert str(tmp_path / "none") in missing.stderr.replace("\n", "")
    assert wrong.exit_code == 2
