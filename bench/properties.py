"""How many cases the property tests of the caches have tried, and how many were wrong.

    python -m bench.properties
    python -m bench.properties tests/cache/test_tenants.py

Runs the tests with Hypothesis's own statistics, and adds the cases up test by test.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

CACHES = ("tests/cache", "tests/contracts/test_vector_indexes.py",
          "tests/contracts/test_cache_stores.py")  # fmt: skip
_TEST = re.compile(r"^(tests/\S+?\.py)::(.+):$")
_CASES = re.compile(r"(\d+) passing(?: examples)?, (\d+) failing(?: examples)?,")


@dataclass(frozen=True, slots=True)
class Tried:
    """The cases that one property was tried on."""

    file: str
    test: str
    passing: int
    failing: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status of the tests."""
    parser = argparse.ArgumentParser(description="cases tried by the property tests")
    parser.add_argument("tests", nargs="*", default=CACHES)
    command = [
        sys.executable, "-m", "pytest", "-q", "--hypothesis-show-statistics",
        *parser.parse_args(argv).tests,
    ]  # fmt: skip
    # The statistics are printed for those tests alone that drew their cases in this run.
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    found = tried(ran.stdout.splitlines())
    table = Table(title=f"{len(found)} properties")
    for heading in ("file", "property", "passing", "failing"):
        table.add_column(heading, justify="right" if heading.endswith("ing") else "left")
    for each in found:
        name = each.test.removeprefix("test_").replace("_", " ")
        table.add_row(each.file, name, f"{each.passing:,}", f"{each.failing:,}")
    passing, failing = sum(t.passing for t in found), sum(t.failing for t in found)
    table.add_row("all", "", f"{passing:,}", f"{failing:,}", style="bold")
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    print(ran.stdout.strip().rpartition("\n")[2])
    return ran.returncode


def tried(lines: Iterable[str]) -> list[Tried]:
    """Return what Hypothesis's statistics tell, test by test, all phases together."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    at: tuple[str, str] | None = None
    for line in lines:
        if named := _TEST.match(line):
            at = named[1], named[2]
        elif at is not None and (told := _CASES.search(line)):
            passing, failing = found.get(at, (0, 0))
            found[at] = passing + int(told[1]), failing + int(told[2])
    return [Tried(*place, *counts) for place, counts in found.items()]


if __name__ == "__main__":
    sys.exit(main())
