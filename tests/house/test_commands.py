"""Every command of `frugal` explains itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.main import app


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield path
    for name, each in (below or {}).items():
        yield from _leaves(each, (*path, name))


COMMANDS = list(_leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_command_has_help_with_an_example(path):
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    assert re.search(rf"Example: .*frugal {' '.join(path)}", result.output)


def test_no_arguments_print_the_commands():
    result = CliRunner().invoke(app, [])

    assert all(path[0] in result.output for path in COMMANDS)
