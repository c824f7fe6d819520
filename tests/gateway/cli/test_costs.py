from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.costs import costs
from gateway.money.ledger import UptimeRecord
from gateway.money.sqlite import SqliteStore
from tests.support.money import attempt, entry

POLICY = """
version: 1
models:
  tiny: {{provider: openai, base_url: "http://127.0.0.1:9/v1", price: unknown_is_free}}
storage:
  ledger: {url}
"""

app = typer.Typer()
app.command()(costs)


@pytest.fixture
def url(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    store.commit(
        [
            entry("one", cost_nano_usd=1_234_567),
            entry("two", estimated=True, lower_nano_usd=1, tenant="[bold]x\x1b[2J"),
        ],
        [
            attempt("one", cost_nano_usd=1_234_567),
            attempt("two", purpose="audit", payer="gateway"),
        ],
        [UptimeRecord("run", "tiny", 0, 3_600_000_000, 400_000_000)],
    )
    store.close()
    return f"sqlite:///{tmp_path}/ledger.db"


def _run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_requests_are_printed_as_json_of_the_documented_shape(url):
    done = _run("--ledger", url, "--by", "request", "--json")
    rows = json.loads(done.stdout)

    assert done.exit_code == 0
    assert [row["request_id"] for row in rows] == ["two", "one"]
    assert rows[1]["cost_nano_usd"] == 1_234_567
    assert done.stdout.count("\n") == len(rows) + 2


@pytest.mark.parametrize("by", ["model", "route", "tenant", "key", "tag", "day"])
def test_sums_are_printed_as_json_with_their_total(url, by):
    told = json.loads(_run("--ledger", url, "--by", by, "--json").stdout)

    assert told["by"] == by
    assert told["total"]["requests"] == 2
    assert told["background"][0]["purpose"] == "audit"
    assert told["idle"][0]["model"] == "tiny"


def test_a_table_shows_dollars_and_what_stands_beside_the_requests(url):
    shown = _run("--ledger", url).stdout

    assert "0.001235" in shown
    assert "escalations" in shown
    assert "audit" in shown
    assert "idle tiny" in shown


def test_a_table_of_requests_shows_bounds_only_where_the_count_is_our_own(url):
    shown = _run("--ledger", url, "--by", "request").stdout

    assert shown.count(" to ") == 1


def test_names_from_requests_cannot_paint_the_terminal(url):
    shown = _run("--ledger", url, "--by", "tenant").stdout

    assert "\x1b[2J" not in shown
    assert "[bold]x" in shown


def test_a_policy_names_its_ledger(url, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(url=url))

    assert len(json.loads(_run("--policy", str(policy), "--by", "request", "--json").stdout)) == 2


def test_a_policys_secrets_need_not_be_set_to_read_its_ledger(url, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(url=url) + "access: {keys: [{name: a, key: '${NOT_SET_7}'}]}")

    assert _run("--policy", str(policy)).exit_code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: {ledger: '${NOT_SET_7}'}", "NOT_SET_7 is not set"),
        ("storage: {ledger: 7}", "storage.ledger: expected text"),
        ("storage: [", "policy.yaml:1:"),
        ("storage: {ledger: 'mysql://x'}", "expected a ledger such as"),
    ],
)
def test_a_policy_that_names_no_ledger_rightly_is_misuse(tmp_path, text, said):
    policy = tmp_path / "policy.yaml"
    policy.write_text(text)
    done = _run("--policy", str(policy))

    assert done.exit_code == 2
    assert said in done.stderr


def test_a_policy_without_storage_has_the_usual_ledger(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("version: 1")
    done = _run("--policy", "policy.yaml")

    assert (done.exit_code, "ledger frugal.db: no such file" in done.stderr) == (1, True)


def test_a_ledger_without_matching_requests_prints_an_empty_list(url):
    assert _run("--ledger", url, "--by", "request", "--json", "--since", "2099-01-01").stdout == (
        "[]\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--ledger", "sqlite:///none.db"], 1, "no such file"),
        (["--ledger", "mysql://x"], 2, "expected a ledger"),
        (["--policy", "none.yaml"], 2, "cannot read none.yaml"),
        (["--policy", "a.yaml", "--ledger", "sqlite:///b.db"], 2, "found both"),
        (["--by", "colour"], 2, "colour"),
    ],
)
def test_misuse_is_told_from_finding_nothing(arguments, code, said):
    done = _run(*arguments)

    assert done.exit_code == code
    assert said in done.stderr


def test_a_time_that_is_none_is_misuse(url):
    done = _run("--ledger", url, "--since", "soon")

    assert done.exit_code == 2
    assert "expected a time such as 24h" in done.stderr


def test_help_has_an_example():
    assert "frugal costs --policy" in " ".join(_run("--help").stdout.split())


def test_what_was_saved_is_told_three_ways_and_never_in_one_sum(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    for number in range(70):
        is_control = number < 30
        store.commit(
            [entry(f"{number}", saved_nano_usd=0 if is_control else 2_000_000_000)],
            [
                attempt(
                    f"{number}",
                    purpose="control" if is_control else "serve",
                    cost_nano_usd=3_000_000_000 if is_control else 1_000_000_000,
                )
            ],
        )
    store.commit([entry("hit", cache="exact", cost_nano_usd=0, saved_nano_usd=5_000_000_000)], [])
    store.close()
    shown = _run("--ledger", f"sqlite:///{tmp_path}/ledger.db", "--by", "route").stdout

    assert "85.000000" not in shown
    for line in ("list price │ auto", "by the caches", "measured by the control arm"):
        assert line in shown
    for dollars in (" 80.000000", " 5.000000", "80.000000 to 80.000000"):
        assert dollars in shown


def test_requests_are_exported_to_a_file(url, tmp_path):
    done = _run("--ledger", url, "--export", str(tmp_path / "out.csv"))
    wrong = _run("--ledger", url, "--export", str(tmp_path / "out.txt"))
    nowhere = _run("--ledger", url, "--export", str(tmp_path / "no" / "out.csv"))

    assert done.exit_code == 0
    assert (tmp_path / "out.csv").read_text().count("\n") == 3
    assert (wrong.exit_code, nowhere.exit_code) == (2, 2)
    assert "cannot be written" in nowhere.stderr
