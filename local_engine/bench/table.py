"""Figures as a table, each as soon as it is there."""

from __future__ import annotations

from collections.abc import Iterable

from local_engine.bench.rows import Row

_MARKS = {None: "", True: "met", False: "MISSED"}


def print_table(rows: Iterable[Row]) -> list[Row]:
    """Print rows as they come; return them."""
    done = []
    for row in rows:
        bound = "" if row.target is None else f"{'<=' if row.at_most else '>='} {row.target:g}"
        line = f"{row.name:<44} {row.value:>10.2f} {row.unit:<9} {bound:>10} {_MARKS[row.is_met]}"
        print(line.rstrip(), flush=True)
        done.append(row)
    return done
