"""`frugal cache`, against a running gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import app
from tests.support.gateway_app import Served, asking, frugal_serve
from tests.support.policies import policy, remote
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

ADMIN = "sk-admin-0123456789abcdef"
CI = "sk-user-0123456789abcdef"
KEYS = [
    {"name": "boss", "key": ADMIN, "scopes": ["admin"]},
    {"name": "ci", "key": CI, "tenant": "platform"},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = Path(tmp_path_factory.mktemp("gateway"))
    with upstream_in_thread(Says("one two", tokens=(10, 4))) as upstream:
        text = policy(
            {"large": remote(upstream.url)},
            {"auto": {"model": "large", "cache": {"exact": {"ttl": "1h"}}}},
            access={"keys": KEYS},
        )
        with frugal_serve(text, folder) as served:
            yield served


def frugal(served: Served, *arguments: str, key: str = ADMIN) -> Result:
    command = ["cache", *arguments, "--url", served.admin_url]
    return CliRunner().invoke(app, command, env={"FRUGAL_ADMIN_KEY": key, "COLUMNS": "100"})


def fill(served: Served, *prompts: str) -> None:
    with served.client(headers={"authorization": f"Bearer {CI}"}) as client:
        for prompt in prompts:
            assert client.post("/v1/chat/completions", json=asking(prompt)).status_code == 200


def test_stats_are_printed_for_people_and_for_programs(served: Served) -> None:
    fill(served, "a", "a")
    shown, told = frugal(served, "stats"), frugal(served, "stats", "--json")

    assert shown.exit_code == told.exit_code == 0
    assert "hits" in shown.output
    assert "storage.redis" in shown.output
    assert json.loads(told.output)["process"]["hits"] >= 1


def test_answers_are_counted_and_then_forgotten(served: Served, tmp_path: Path) -> None:
    frugal(served, "invalidate", "--everything")
    fill(served, "a", "b")
    request = tmp_path / "request.json"
    request.write_text(json.dumps(asking("a")))
    one = ["--request", str(request), "--tenant", "platform"]
    dry = frugal(served, "invalidate", *one, "--dry-run", "--json")
    done = frugal(served, "invalidate", "--entry", json.loads(dry.output)["key"])
    rest = frugal(served, "invalidate", "--route", "auto", "--dry-run")

    assert json.loads(dry.output)["entries"] == 1
    assert done.output.startswith("1 answers forgotten")
    assert rest.output.startswith("1 answers would be forgotten")


def test_answers_older_than_a_moment_are_forgotten(served: Served) -> None:
    frugal(served, "invalidate", "--everything")
    fill(served, "a")

    before = frugal(served, "invalidate", "--before", "2020-01-01", "--json")
    after = frugal(served, "invalidate", "--before", "2999-01-01T00:00+00:00", "--json")
    assert [json.loads(each.output)["entries"] for each in (before, after)] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["invalidate"], "expected one or more of"),
        (["invalidate", "--before", "noon"], "--before: expected a time"),
        (["invalidate", "--request", "nowhere.json"], "--request: expected a file"),
    ],
)
def test_what_cannot_be_meant_is_refused(served: Served, arguments: list[str], words: str) -> None:
    result = frugal(served, *arguments)

    assert result.exit_code == 2
    assert words in result.stderr


def test_only_an_admin_may_ask(served: Served) -> None:
    result = frugal(served, "stats", key=CI)

    assert result.exit_code == 1
    assert "admin" in result.stderr


def test_a_gateway_that_does_not_run_is_named() -> None:
    result = CliRunner().invoke(app, ["cache", "stats", "--url", "http://127.0.0.1:9"])

    assert result.exit_code == 1
    assert "http://127.0.0.1:9: expected the admin port of a running gateway" in result.stderr
