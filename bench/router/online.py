"""How a cascade gets on that starts with nothing and learns from its audits alone.

    python -m bench.router online --data ../shared/data

Queries are drawn from train and dev, as audited traffic, another draw each time, and every step
that is due is taken. What is certified is then held against all of them: they are the truth of
those draws. A reply counts as worse where its score is lower than the reference's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.router.pool import POOLS, pool_tables
from router.cold import signs_of
from router.costs import Price
from router.course import Judged
from router.guarantee import Floor
from router.learn_table import LearnTable
from router.online.stages import counting, next_step
from router.online.standing import Standing, Taken, Terms, after
from router.online.thresholds import way_of
from router.online.traffic import Asked, Seen
from router.signs import Checked
from router.types import Draft
from router.usability import why_useless

_TIERS = "Meta-Llama-3.1-8B-Instruct,claude-3-5-sonnet-20240620"


def main(argv: Sequence[str]) -> int:
    """Print the table. Returns the exit status."""
    asked = _arguments(argv)
    tiers = tuple(asked.tiers.split(","))
    *parts, prices = pool_tables(asked.data, POOLS[asked.pool])
    known = [each for part in parts for each in _traffic(part.of_models(tiers), prices)]
    print(f"{' > '.join(tiers)}: audits drawn from {len(known)} queries, {asked.draws} draws")
    table = Table()
    for name in ("floor", "audits", "certified", "broken", "reference calls", "cost", "looks"):
        table.add_column(name)
    for most in asked.floors:
        terms = Terms(tiers[:-1], tiers[-1], Floor(most))
        draws = [_walked(known, terms, asked.counts, seed) for seed in range(asked.draws)]
        for place, count in enumerate(asked.counts):
            stood = [draw[place] for draw in draws]
            table.add_row(f"{most:.0%}", str(count), *_told(stood, known, terms))
    Console(width=120).print(table)
    return 0


def _walked(
    known: Sequence[Asked], terms: Terms, counts: Sequence[int], seed: int
) -> list[Standing]:
    """Return where the route stands after so many audits of one draw."""
    places = np.random.default_rng(seed).integers(0, len(known), max(counts))
    traffic = [
        replace(known[int(place)], id=f"{seed}-{at}", at_us=at)
        for at, place in enumerate(places, 1)
    ]
    standing, stood, done = Standing(), [], 0
    for count in counts:
        while done < min(count, len(traffic)):
            done = min(done + 25, count, len(traffic))
            while True:
                counted = counting(traffic[:done], standing, terms)
                if (step := next_step(counted, standing, terms)) is None:
                    break
                standing = after(standing, Taken(standing.number + 1, done, step, terms.key))
        stood.append(standing)
    return stood


def _told(stood: Sequence[Standing], known: Sequence[Asked], terms: Terms) -> list[str]:
    assert terms.floor is not None, "every row has one"
    dear = float(np.mean([each.reference_usd or 0.0 for each in known]))
    broken, calls, usd = [], [], []
    for standing in stood:
        if standing.stage != "certified":
            broken.append(0.0)
            calls.append(1.0)
            usd.append(1.0)
            continue
        ways = [way_of(each, standing.acceptance, terms.judged[-1], dear) for each in known]
        broken.append(float(np.mean([way.is_loss for way in ways]) > terms.floor.max_loss))
        calls.append(float(np.mean([way.served is None for way in ways])))
        usd.append(float(np.mean([way.usd for way in ways])) / dear)
    held = sum(standing.stage == "certified" for standing in stood)
    looks = np.mean([standing.looks for standing in stood])
    shares = (held / len(stood), np.mean(broken), np.mean(calls), np.mean(usd))
    return [*(f"{share:.1%}" for share in shares), f"{looks:.1f}"]


def _traffic(table: LearnTable, prices: Mapping[str, Price]) -> list[Asked]:
    return [_asked(table, row, _usd(table, row, prices)) for row in range(len(table))]


def _usd(table: LearnTable, row: int, prices: Mapping[str, Price]) -> list[float]:
    """Return what each reply costs at its list price."""
    return [
        float(
            table.prompt_tokens[row, place] * prices[name].input
            + table.completion_tokens[row, place] * prices[name].output
        )
        / 1e6
        for place, name in enumerate(table.models)
    ]


def _asked(table: LearnTable, row: int, usd: Sequence[float]) -> Asked:
    checked, judged, drafts = Checked(table.queries[row]), list[Judged](), []
    truth = table.score[row, -1]
    for place, name in enumerate(table.models[:-1]):
        cell = table.cell(row, place)
        draft = Draft(name, (cell.response if cell else None) or "", "stop")
        useless = why_useless(draft.text, "stop")
        signs = signs_of(checked, draft, judged)
        judged.append(Judged(draft, signs.raw, useless=useless))
        score = float(table.score[row, place] >= truth)
        drafts.append(Seen(name, None if useless else signs.raw, score, usd[place]))
    return Asked(table.ids[row], row, True, tuple(drafts), usd[-1], propensity=1.0)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.router online",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the outcomes tables")
    parser.add_argument("--pool", choices=sorted(POOLS), default="zeroeval")
    parser.add_argument("--tiers", default=_TIERS, help="from the cheapest to the reference")
    parser.add_argument("--floors", nargs="*", type=float, default=[0.1, 0.05, 0.02])
    parser.add_argument("--counts", nargs="*", type=int, default=[100, 200, 400, 800, 1600])
    parser.add_argument("--draws", type=int, default=30)
    return parser.parse_args(argv)
