from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.learning.book import Book, OutcomeRow
from gateway.learning.feedback import Feedback, keep
from gateway.money.migrate import migrate_sqlite
from router.outcomes import read_outcomes


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.db"
    migrate_sqlite(path)
    book = Book(f"sqlite:///{path}")
    told = json.dumps([{"role": "user", "content": "how many?"}])
    stats = '{"logprob_q00":-0.5,"margin":1.5,"count":3}'
    given = ("t", "1", "", "large", "")
    book.add([
        OutcomeRow("r1", "small", 1, 0, "auto", *given, True, True, 0.9, 0.02, 0.0, "exact",
                   "stop", 10, 3, 16_000, 5_000, stats, None, told, "#### 41"),
        OutcomeRow("r1", "large", 1, 1, "auto", *given, False, True, None, 0.02, 1.0, "reference",
                   "stop", 10, 3, 160_000, 5_000, "{}", None, told, "#### 42"),
    ])  # fmt: skip
    book.close()
    return f"sqlite:///{path}"


def test_exported_outcomes_are_a_table_to_train_on(ledger, tmp_path):
    out = tmp_path / "outcomes.jsonl"
    result = CliRunner().invoke(
        app, ["outcomes", "export", "--ledger", ledger, "--route", "auto", "--out", str(out)]
    )

    assert result.exit_code == 0, result.output
    small, large = sorted(read_outcomes(out), key=lambda row: row.model, reverse=True)
    assert (small.query_id, small.score, small.cost_usd) == ("r1", 0.0, 1.6e-05)
    assert (small.prompt, small.response) == ("how many?", "#### 41")
    assert (small.logprob_q00, small.margin, small.propensity) == (-0.5, 1.5, 0.02)
    assert (large.model, large.score, large.scored_against) == ("large", 1.0, "large")


def test_outcomes_set_against_one_model_are_exported_alone(ledger, tmp_path):
    def exported(reference):
        out = str(tmp_path / "outcomes.jsonl")
        given = ["--ledger", ledger, "--route", "auto", "--out", out, "--reference", reference]
        return CliRunner().invoke(app, ["outcomes", "export", *given])

    assert "2 rows" in exported("large").stderr
    assert "set against large, not small" in exported("small").stderr


def test_what_clients_said_is_a_table_of_its_own(ledger, tmp_path):
    out = tmp_path / "feedback.jsonl"
    given = ["--feedback", "--ledger", ledger, "--route", "auto", "--out", str(out)]
    empty = CliRunner().invoke(app, ["outcomes", "export", *given])
    book = Book(ledger)
    for key, score in (("a", 1.0), ("b", 0.5)):
        keep(book, Feedback("r1", key, 1, "t", "auto", "small", "miss", "large", score, 1.0, "42"))
    keep(book, Feedback("r2", "a", 1, "t", "auto", "", "exact", "large", 0.0, 1.0))
    book.close()
    result = CliRunner().invoke(app, ["outcomes", "export", *given])

    assert empty.exit_code == 2
    assert "nobody has given feedback" in empty.output
    assert result.exit_code == 0, result.output
    rows = [(row.query_id, row.model, row.sample, row.score) for row in read_outcomes(out)]
    assert rows == [
        ("r1", "small", 0, 1.0),
        ("r1", "small", 1, 0.5),
        ("r2", "exact cache", 0, 0.0),
    ]
    first = json.loads(out.read_text().splitlines()[0])
    assert (first["labeller"], first["weight"], first["label"]) == ("feedback", 1.0, "42")


@pytest.mark.parametrize(
    ("route", "out", "says"),
    [("other", "x.jsonl", "there are outcomes of: auto"), ("auto", "x.csv", "ending in .jsonl")],
)
def test_what_cannot_be_exported_is_told(ledger, tmp_path, route, out, says):
    given = ["--ledger", ledger, "--route", route, "--out", str(tmp_path / out)]
    result = CliRunner().invoke(app, ["outcomes", "export", *given])

    assert result.exit_code == 2
    assert says in result.output
    assert not (tmp_path / out).exists()
