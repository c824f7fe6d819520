"""docs/metrics.md says every family as `/metrics` tells it."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.telemetry.families import FAMILIES
from local_engine.accelerator import AcceleratorState
from local_engine.metrics import render_metrics
from local_engine.types import EngineStats

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()


def row(family):
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.full}` | {family.kind} | {labels} | {family.told} |"


def test_the_page_has_a_row_for_every_family_and_no_other():
    rows = [row(family) for family in FAMILIES]
    written = [
        line for line in PAGE.splitlines() if re.match(r"\| `frugal_\w+` \|.*\|.*\|.*\|", line)
    ]

    assert [line for line in written if not line.startswith("| `frugal_engine_")] == rows


def test_the_page_has_a_row_for_all_that_engines_tell():
    text = render_metrics(EngineStats(), None, AcceleratorState(4, 3, 2, 0.5))
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    rows = {
        f"| `{name}` | {kinds[name]} | {told} |"
        for name, told in re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE)
    }

    assert rows == {line for line in PAGE.splitlines() if line.startswith("| `frugal_engine_")}
