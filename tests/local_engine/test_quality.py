"""What a quantization costs, measured on the shipped model and on a text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from local_engine.checkpoint import find_checkpoint
from local_engine.loader import load_model
from local_engine.quality import Example, compare, demo_examples, main, table, text_examples
from local_engine.tokenizer import Tokenizer
from tests.local_engine.conftest import CPU

TINY = find_checkpoint("demo/tiny")


def test_schemes_rank_by_what_they_keep() -> None:
    examples = demo_examples(load_model(TINY, CPU), 24)
    exact, eight, four = compare(TINY, examples, ("none", "int8", "int4-g32"))

    assert exact.first_token_kl == 0.0
    assert exact.agreement == 1.0
    assert 1.0 < exact.perplexity < 3.0  # its own words
    assert 0.0 < eight.first_token_kl < four.first_token_kl < 0.2
    assert eight.perplexity == pytest.approx(exact.perplexity, rel=0.02)
    assert exact.mib > eight.mib > four.mib
    assert len(list(table([exact, eight]))) == 3


def test_a_text_is_measured_in_windows() -> None:
    tokenizer = Tokenizer.load(TINY)
    examples = text_examples(tokenizer, "What is 12 + 30? " * 60, 3)

    assert 1 <= len(examples) <= 3
    assert all(len(e.prompt) == 32 and e.answer for e in examples)
    assert text_examples(tokenizer, "short", 3) == []
    assert isinstance(examples[0], Example)


def test_the_command_prints_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("What is 12 + 30? " * 40)

    assert main(["demo/tiny", "--text", str(text), "--schemes", "int8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["scheme"] == "int8"
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])
    text.write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["demo/tiny", "--text", str(text)])
