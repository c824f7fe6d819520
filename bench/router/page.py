"""The page of all the router's tables, made from their results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.router.svg import Line, curves

_NONE = "\u2013"
PAGE = "router-tables.md"
_BUDGETS = ("0", "50", "200", "1500", "5000", "all")
_TASKS = {
    "mmlu": "MMLU, Mixtral 8x7B and GPT-4 (RouteLLM's outcomes)",
    "gsm8k": "GSM8K, the same pair",
    "mmlu-pro": "MMLU-Pro, Llama-3.1-8B and Gemini 1.5 Pro",
    "zeroeval": "ZeroEval, Llama-3.1-8B and Sonnet 3.5",
}
_HEAD = """# The learned router's tables

Written by `python -m bench.router everything --data DATA --results RESULTS` from public outcomes;
what a row means says `python -m bench.router TABLE --help`. Pair rows are five-fold cross-fitting
on train and dev, near-duplicates kept together, means over the seeds; pools are learnt on train,
their operating points chosen there and run on dev once. Intervals are 95 %, by bootstrap over
queries, differences paired. Prices are the list prices of the data's folder.
"""


def page_of(results: Path, jobs: Iterable[str]) -> dict[str, str]:
    """Return the page and its plots by their paths below docs/, and name what is missing."""
    found = {
        name: json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        for name in jobs
        if (results / f"{name}.json").exists()
    }
    missing = [name for name in jobs if name not in found]
    plots: dict[str, str] = {}
    parts = [
        _HEAD,
        *_before(found, plots),
        *_left_out(found),
        *_ablations(found),
        *_after(found),
        *_pools(found, plots),
        *_guarantees(found),
    ]
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        parts.append(f"## Not run yet\n\n{names}.\n")
    return {PAGE: "\n".join(parts), **plots}


def _before(found: Mapping[str, Any], plots: dict[str, str]) -> Iterator[str]:
    for task, told in _TASKS.items():
        by_budget = {
            labels: {row["way"]: row for row in found[name]}
            for labels in _BUDGETS
            if (name := f"pairs-{task}-{labels}") in found
        }
        if not by_budget:
            continue
        ways = list(dict.fromkeys(way for rows in by_budget.values() for way in rows))
        yield f"## Before generating: {told}\n\nAPGR by label budget.\n"
        yield _table(
            ["way", *(f"{each} labels, {_seeds(rows)}" for each, rows in by_budget.items())],
            [[way, *(_apgr(rows.get(way)) for rows in by_budget.values())] for way in ways],
        )
        last = list(by_budget.values())[-1]
        yield _table(
            ["way, at most labels", "less TF-IDF logistic", "CPT50", "CPT80"],
            [
                [
                    way,
                    _interval(row["against"], "+.3f"),
                    f"{row['cpt50']:.1%}",
                    f"{row['cpt80']:.1%}",
                ]
                for way, row in last.items()
            ],
        )
        if len(by_budget) > 1:
            plots[f"images/labels-{task}.svg"] = _budget_plot(by_budget, ways)
            yield f"![APGR over label budgets](images/labels-{task}.svg)\n"


def _seeds(rows: Mapping[str, Any]) -> str:
    count = max(len(row["seeds"]) for row in rows.values())
    return "1 seed" if count == 1 else f"{count} seeds"


def _budget_plot(by_budget: Mapping[str, Mapping[str, Any]], ways: Sequence[str]) -> str:
    lines = [
        Line(way, [
            (float(at), rows[way]["apgr"]["value"])
            for at, rows in enumerate(by_budget.values()) if way in rows
        ])
        for way in ways if way != "oracle"
    ]  # fmt: skip
    return curves(lines, across=f"labels: {', '.join(by_budget)}", up="APGR")


def _left_out(found: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in found if name.startswith("pairs-") and name.endswith("-leave")]
    for name in names:
        rows = found[name]
        yield (
            f"## Before generating, a {rows[0]['leave']} held out as a whole: "
            f"{_TASKS[rows[0]['task']]}\n"
        )
        yield _table(
            ["way", "APGR", "less TF-IDF logistic"],
            [[row["way"], _apgr(row), _interval(row["against"], "+.3f")] for row in rows],
        )


def _ablations(found: Mapping[str, Any]) -> Iterator[str]:
    for name in [name for name in found if name.endswith("-ablate")]:
        rows = {row["way"]: row for row in found[name]}
        whole = rows["ours"]["apgr"]["value"]
        labels = next(iter(rows.values()))["labels"] or "all"
        task = _TASKS[rows["ours"]["task"]]
        yield f"## What each learner adds before generating: {task}, {labels} labels\n"
        yield _table(
            ["way", "APGR", "less all of ours"],
            [
                [way, _apgr(row), f"{row['apgr']['value'] - whole:+.3f}"]
                for way, row in rows.items()
            ],
        )


def _after(found: Mapping[str, Any]) -> Iterator[str]:
    whole = [name for name in found if name.startswith("post-") and "-without-" not in name]
    for name in whole:
        yield f"## After generating: {name.removeprefix('post-')}\n"
        yield _table(
            ["judged", "labels", "AUROC", "Brier", "ECE (chance)", "APGR by confidence", "by gain"],
            [
                [
                    row["judged"], str(row["labels"] if row["labels"] is not None else "all"),
                    _interval(row["auroc"]), _interval(row["brier"]),
                    f"{row['ece']:.3f} ({row['chance']:.3f})",
                    _interval(row["by_confidence"]), _interval(row["by_gain"]),
                ]
                for row in found[name]
            ],
        )  # fmt: skip
        yield from _families(found, name)


def _families(found: Mapping[str, Any], name: str) -> Iterator[str]:
    rows = [
        [family, row["judged"], _interval(row["auroc"]), _interval(row["by_gain"])]
        for other in found
        if other.startswith(f"{name}-without-")
        for family in (other.removeprefix(f"{name}-without-"),)
        for row in found[other]
        if row["judged"] != "before generating"
    ]
    if rows:
        yield "Without a family of features:\n"
        yield _table(["without", "judged", "AUROC", "APGR by gain"], rows)


def _pools(found: Mapping[str, Any], plots: dict[str, str]) -> Iterator[str]:
    for name in [name for name in found if name.startswith("pool-")]:
        told = found[name]
        yield f"## Pool {name.removeprefix('pool-')}\n\n{told['told']}.\n"
        yield _table(
            ["way", "asked", "quality on dev / the best single model's", "cost / its"],
            [
                [
                    row["way"],
                    f"{row['asked']:.0%}",
                    _interval(row["quality"]),
                    _interval(row["cost"]),
                ]
                for row in told["rows"]
            ],
        )
        yield "AIQ from the cheapest single model's cost to the best one's, on the hull.\n"
        yield _table(
            ["way", "AIQ", "ours, more than it"],
            [[row["way"], _interval(row["aiq"]), _interval(row["behind"], "+.3f")]
             for row in told["areas"]],
        )  # fmt: skip
        path = f"images/{name}.svg"
        plots[path] = told["plot"]
        yield f"![quality over cost on dev]({path})\n"


def _guarantees(found: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in found if name.startswith("guarantee-")]
    if not names:
        return
    yield "## The guarantee\n"
    yield _table(
        [
            "pool",
            "goal",
            "floor",
            "draw of",
            "way",
            "broken",
            "reference calls",
            "cost",
            "certified",
        ],
        [
            [name.removeprefix("guarantee-"), *(str(row[key]) for key in row)]
            for name in names
            for row in found[name]
        ],
    )


def _apgr(row: Mapping[str, Any] | None) -> str:
    return _NONE if row is None else _interval(row["apgr"])


def _interval(found: Mapping[str, float] | None, spec: str = ".3f") -> str:
    if found is None:
        return _NONE
    value, low, high = (format(found[each], spec) for each in ("value", "lower", "upper"))
    return f"{value} [{low}, {high}]"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
