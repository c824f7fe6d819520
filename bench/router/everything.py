"""Every table of the router, one after the other, and the page that shows them.

    python -m bench.router everything --data ../shared/data --results RESULTS

Each table runs in a process of its own and leaves RESULTS/NAME.json; those that are there are
not run again, so an interrupted run goes on where it stopped. `--only NAME …` runs some of them.
In the end, or at once with `--write`, docs/router-tables.md and its plots are written from what
is there. All of it takes one to two hours of CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.router.page import page_of
from bench.router.sets import ZEROEVAL
from bench.router.ways import BASELINES

DOCS = Path(__file__).parents[2] / "docs"
_POST = "bench.router_post"
_PAIRS, _POOL = ("bench.router", "pairs"), ("bench.router", "pool", "--pool")
# The label budgets that a task has queries for: a fold of GSM8K is learnt from 840.
_FEW = ("all", "200", "50", "0")
_TASKS = {
    "mmlu": ("1500", *_FEW, "5000"),
    "gsm8k": _FEW,
    "mmlu-pro": ("1500", *_FEW, "5000"),
    "zeroeval": ("1500", *_FEW),
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_Job = tuple[str, tuple[str, ...]]


def jobs() -> Mapping[str, tuple[str, ...]]:
    """Return what is run for each result: a module and its arguments."""
    return dict([*_pairs(), *_posts(), *_pools()])


def _pairs() -> Iterator[_Job]:
    plain = ("--only", *BASELINES, "ours")
    for task, budgets in _TASKS.items():
        for labels in budgets:
            # Hours of learning otherwise: ours in its other forms in one place, and fewer seeds.
            is_large = task in ("mmlu", "mmlu-pro")
            less = plain if is_large and (task, labels) != ("mmlu", "1500") else ()
            if is_large and labels in ("all", "5000"):
                less = ("--seeds", "2", *plain)
            yield f"pairs-{task}-{labels}", (*_PAIRS, "--task", task, "--labels", labels, *less)
    for task, leave in (("zeroeval", "dataset"), ("mmlu-pro", "category")):
        told = ("--task", task, "--leave", leave, "--seeds", "1", *plain)
        yield f"pairs-{task}-leave", (*_PAIRS, *told)
    for task, labels in (("mmlu", "1500"), ("zeroeval", "all")):
        asked = ("--task", task, "--labels", labels, "--seeds", "1", "--ablate")
        yield f"pairs-{task}-ablate", (*_PAIRS, *asked)


def _posts() -> Iterator[_Job]:
    for pair in ("zeroeval", "gsm8k", "mmlu_pro"):
        yield f"post-{pair}", (_POST, pair, "--labels", "0,50,200,1500,5000,all")
    yield "post-zeroeval-leave", (_POST, "zeroeval", "--leave")
    for family in ("examples", "maths", "choice", "estimates", "words", "agreement", "shape"):
        for pair in ("zeroeval", "mmlu_pro"):
            yield f"post-{pair}-without-{family}", (_POST, pair, "--without", family)


def _pools() -> Iterator[_Job]:
    for pool in ("zeroeval", "mmlu-pro"):
        yield f"pool-{pool}", (*_POOL, pool, "--rivals")
    yield "pool-zeroeval-unread", (*_POOL, "zeroeval", "--without", "examples")
    for name in ZEROEVAL:
        yield f"pool-zeroeval-leave-{name}", (*_POOL, "zeroeval", "--leave", name)
    for pool in ("mmlu-pro-pair", "mmlu-pro-trio", "mmlu-pro-five", "zeroeval-pair", "zeroeval"):
        yield f"guarantee-{pool}", ("bench.router", "guarantee", "--pool", pool)


def main(argv: Sequence[str]) -> int:
    """Run what is missing, and write the page. Returns the exit status."""
    asked = _arguments(argv)
    asked.results.mkdir(parents=True, exist_ok=True)
    failed = [] if asked.write else _run(asked)
    for path, text in page_of(asked.results, jobs()).items():
        (asked.docs / path).parent.mkdir(parents=True, exist_ok=True)
        (asked.docs / path).write_text(text, encoding="utf-8")
        print(f"written: {asked.docs / path}")
    for name in failed:
        print(f"{name} failed; see {asked.results / name}.log", file=sys.stderr)
    return 1 if failed else 0


def _run(asked: argparse.Namespace) -> list[str]:
    failed = []
    wanted = {name: job for name, job in jobs().items() if not asked.only or name in asked.only}
    with Progress(console=Console(stderr=True)) as progress:
        for name, job in progress.track(wanted.items(), description="tables"):
            out = asked.results / f"{name}.json"
            if not out.exists() and not _done(job, asked.data, out):
                failed.append(name)
    return failed


def _done(job: Sequence[str], data: Path, out: Path) -> bool:
    """Run one job; its result takes its name only once it is whole."""
    part = out.with_suffix(".part")
    command = [sys.executable, "-m", *job, "--data", str(data), "--json"]
    with part.open("wb") as found, out.with_suffix(".log").open("wb") as told:
        ended = subprocess.run(
            command, stdout=found, stderr=told, check=False,
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )  # fmt: skip
    if ended.returncode == 0:
        part.replace(out)
    return ended.returncode == 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.router everything", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder of the outcomes tables")
    parser.add_argument("--results", type=Path, required=True, help="folder of what was found")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the page is written")
    parser.add_argument("--only", nargs="+", default=[], choices=list(jobs()), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="run nothing, write the page")
    return parser.parse_args(argv)
