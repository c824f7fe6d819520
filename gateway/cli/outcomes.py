"""`frugal outcomes`: what routes have learnt from their traffic, to train on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

_MISUSED = 2
outcomes = typer.Typer(no_args_is_help=True, help="Outcomes that a gateway has kept to learn from.")


@outcomes.callback()
def _group() -> None:
    """Keep `export` a command of its own while it is the only one."""


@outcomes.command(
    "export", epilog="Example: frugal outcomes export --route auto --out outcomes.jsonl"
)
def export(
    route: Annotated[str, typer.Option(help="The route whose outcomes are wanted.")],
    out: Annotated[Path, typer.Option(help="Where the rows go: a .jsonl file.")],
    ledger: Annotated[str, typer.Option(help="The ledger's URL.")] = "sqlite:///frugal.db",
    reference: Annotated[
        str | None, typer.Option(help="Only what was set against this model's answers.")
    ] = None,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="What clients said of answers, in their place.")
    ] = False,
) -> None:
    """Write a route's outcomes as a table that `frugal train --outcomes` reads."""
    from gateway.learning.errors import LearningError
    from gateway.learning.exporting import export as write
    from gateway.money.errors import LedgerError

    try:
        count = write(ledger, route, out, reference=reference, feedback=feedback)
    except (LearningError, LedgerError) as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    print(f"{count} rows written to {out}", file=sys.stderr)
