"""The set-up: the lock holds what the project declares, and nothing that only one machine has."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.source import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
LOCKED = {
    canonicalize_name(requirement.name): requirement
    for requirement in (Requirement(line) for line in LOCK if not line.startswith("#"))
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _declared():
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [each for each in map(Requirement, lines) if each.name != PROJECT["name"]]


@pytest.mark.parametrize("declared", _declared(), ids=lambda requirement: requirement.name)
def test_declared_dependency_is_locked_within_its_bounds(declared):
    locked = LOCKED[canonicalize_name(declared.name)]

    (pin,) = locked.specifier
    assert pin.operator == "=="
    assert declared.specifier.contains(pin.version)


def test_lock_is_the_same_on_every_machine():
    assert str(LOCKED["torch"]) == "torch==2.13.0"
    assert [line for line in LOCK if re.search(r"://|@ |--|\+|^(cuda|nvidia|triton)", line)] == []


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ([], ".venv/bin/frugal up"),
        (["PORT=5000", "ADMIN_PORT=5001"], ".venv/bin/frugal up --port 5000 --admin-port 5001"),
        (["POLICY=my.yaml", "PORT=5000"], '.venv/bin/frugal serve "my.yaml" --port 5000'),
    ],
)
def test_make_run_serves_what_its_variables_say(variables, command):
    lines = _make("--dry-run", "run", *variables).splitlines()

    assert lines[-1].split() == command.split()


def test_make_alone_says_what_there_is():
    assert "make test" in _make()


@pytest.mark.parametrize(
    ("failing", "second", "status", "ran"),
    [
        ("", 0, 0, ["browser", "kernels", "lint", "test"]),
        ("browser", 0, 0, ["browser", "kernels", "lint", "test"]),
        ("kernels", 0, 0, ["browser", "kernels", "lint", "test"]),
        ("lint", 0, 1, ["browser", "kernels", "lint"]),
        ("test", 0, 0, ["browser", "kernels", "lint", "test", "again"]),
        ("test", 1, 1, ["browser", "kernels", "lint", "test", "again"]),
    ],
)
def test_continuous_integration_runs_the_commands_of_a_desk(tmp_path, failing, second, status, ran):
    script = tmp_path / "tree" / ".ci" / "run"
    for path, text in {
        script: (ROOT / ".ci" / "run").read_text(encoding="utf-8"),
        tmp_path / "make": f"#!/bin/sh\necho $1 >>{tmp_path}/ran; [ $1 != '{failing}' ]",
        tmp_path
        / "tree/.venv/bin/pytest": f"#!/bin/sh\necho again >>{tmp_path}/ran; exit {second}",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([script], env=env, capture_output=True, text=True, timeout=60)

    assert (done.returncode != 0) == bool(status)
    assert (tmp_path / "ran").read_text(encoding="utf-8").split() == ran
    assert ("FLAKY" in done.stderr) == (failing == "test" and not second)


def _make(*arguments):
    command = ["make", "--no-print-directory", *arguments]
    env = {"PATH": os.environ["PATH"]}  # none of an outer make's variables
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout
