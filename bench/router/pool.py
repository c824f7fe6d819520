"""The whole cascade over a pool of models: what the best model's quality costs.

    python -m bench.router pool --pool zeroeval --data ../shared/data

Everything is learnt on train. The operating point is the cheapest one that keeps the asked
share of the best single model's quality on train's cross-fitted records; it is then run on
dev, once. Costs are of the replies as they were, at the folder's list prices. Intervals are
95 %, by bootstrap over the dev queries; quality is paired with the best single model's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.router.rivals import ROUTERS, Way, areas, crossfitted, frugal_gpt, on_hull, routed
from bench.router.sets import ZEROEVAL, outcomes
from bench.router.svg import Line, curves
from router.costs import Price
from router.drafts import Drafts
from router.learn_table import LearnTable
from router.metrics import Interval
from router.targets import PriceOfQuality
from router.train import MOST_HEARD, Task, Trained, complete_rows, records_at, train
from router.value_fit import Records, simulate

Floats = NDArray[np.float64]

PRICED = date(2026, 11, 20)
RATES = np.geomspace(0.003, 6.0, 60)
_DRAWS = 2000
_AREA_DRAWS = 500
OURS, SINGLES = "cascade (ours)", "one model"


@dataclass(frozen=True, slots=True)
class Pool:
    """Models on datasets (None: all priced ones), and the shares of quality asked for."""

    name: str
    datasets: tuple[str, ...]
    models: tuple[str, ...] | None
    shares: tuple[float, ...]


POOLS = {
    pool.name: pool
    for pool in (
        Pool(
            "zeroeval",
            ZEROEVAL,
            ("Meta-Llama-3.1-8B-Instruct", "Qwen2-7B-Instruct", "gpt-4o-mini-2024-07-18",
             "Meta-Llama-3.1-70B-Instruct", "gpt-4o-2024-05-13", "claude-3-5-sonnet-20240620"),
            (0.95, 0.98, 0.99, 1.0),
        ),
        Pool(
            "zeroeval-pair",
            ZEROEVAL,
            ("Meta-Llama-3.1-8B-Instruct", "claude-3-5-sonnet-20240620"),
            (0.95, 0.98, 0.99),
        ),
        Pool("mmlu-pro", ("mmlu_pro",), None, (0.95, 0.98, 0.99, 1.0)),
        Pool(
            "mmlu-pro-trio",
            ("mmlu_pro",),
            ("gemini-1.5-flash-002", "Meta-Llama-3_1-70B-Instruct", "gemini-1.5-pro-002"),
            (0.95, 0.98, 0.99),
        ),
        Pool(
            "mmlu-pro-five",
            ("mmlu_pro",),
            (
                "Phi-3-mini-4k-instruct", "Meta-Llama-3_1-8B-Instruct", "gemini-1.5-flash-002",
                "Meta-Llama-3_1-70B-Instruct", "gemini-1.5-pro-002",
            ),
            (0.95, 0.98, 0.99),
        ),
        Pool(
            "mmlu-pro-pair",
            ("mmlu_pro",),
            ("Meta-Llama-3_1-8B-Instruct", "gemini-1.5-pro-002"),
            (0.95, 0.98, 0.99),
        ),
    )
}  # fmt: skip


def listed_prices(data: Path) -> dict[str, Price]:
    """Return the folder's list prices."""
    told = json.loads((data / "prices.json").read_text())["models_usd_per_1M"]
    return {name: Price(each["input"], each["output"], PRICED) for name, each in told.items()}


def pool_tables(
    data: Path, pool: Pool, *, limit: int | None = None
) -> tuple[LearnTable, LearnTable, dict[str, Price]]:
    """Return train and dev, complete for the pool's priced models, cheapest model first."""
    prices = listed_prices(data)
    table = outcomes(data, pool.datasets, pool.models, replies=True)
    known = [m for m in table.models if m in prices and _is_common(table, m)]
    table = table.of_models(known)
    table = table.subset(complete_rows(table))
    usd = [_mean_usd(table, place, prices[name]) for place, name in enumerate(known)]
    table = table.of_models([known[place] for place in np.argsort(usd)])
    taught, asked = table.of_split("train"), table.of_split("dev")
    if limit is not None and limit < len(taught):
        taught = taught.subset(np.random.default_rng(0).permutation(len(taught))[:limit])
    return taught, asked, prices


def _is_common(table: LearnTable, model: str) -> bool:
    return bool((~np.isnan(table.score[:, table.models.index(model)])).mean() > 0.97)


def _mean_usd(table: LearnTable, place: int, price: Price) -> float:
    """Return what a reply costs on average; infinity where no reply's tokens were counted."""
    read, written = table.prompt_tokens[:, place], table.completion_tokens[:, place]
    counted = ~np.isnan(read) & ~np.isnan(written)
    if not counted.any():
        return float("inf")
    return float(read[counted].mean() * price.input + written[counted].mean() * price.output)


def learnt_on(taught: LearnTable, prices: dict[str, Price], without: tuple[str, ...]) -> Trained:
    """Learn a cascade, its best single model the reference."""
    best = taught.models[int(np.argmax(taught.score.mean(axis=0)))]
    task = Task(taught.models, best, PriceOfQuality(0.01), prices, without=without)
    with Progress(console=Console(stderr=True)) as progress:
        bars = {}

        def advance(what: str, share: float) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=1.0)
            progress.update(bars[what], completed=share)

        return train(taught, task, advance)


def dev_records(trained: Trained, asked: LearnTable) -> Records:
    """Return dev's records by the finished parts; replies of many models are not all read."""
    judged = next(iter(trained.learnt.values.values())).lineup.judged
    few = len(asked.models) <= MOST_HEARD
    drafts = Drafts.read(
        asked, shorten=lambda row, model, text: len(text) if few or model in judged else 0
    )
    return records_at(trained.learnt, asked, drafts)


def ways_of(trained: Trained, known: Records, asked: Records) -> dict[str, list[Way]]:
    """Return the operating points of ours, of single models and of who knew every score."""
    value, beliefs = trained.learnt.values["quality"], trained.learnt.beliefs
    cascades = []
    for rate in RATES:
        runs = [simulate(value, beliefs, records, float(rate)) for records in (known, asked)]
        cascades.append(
            Way(
                f"rate {rate:.3g}",
                (runs[0].quality(known), runs[0].usd),
                (runs[1].quality(asked), runs[1].usd),
            )
        )
    singles = [
        Way(name, (known.score[:, m], known.paid[:, m]), (asked.score[:, m], asked.paid[:, m]))
        for m, name in enumerate(known.lineup.models)
    ]
    return {
        OURS: cascades,
        "routed before generating (ours)": before_generating(
            known, asked, known.first, asked.first
        ),
        SINGLES: singles,
        "best there is": [Way("oracle", _oracle(known), _oracle(asked))],
    }


def before_generating(known: Records, asked: Records, quality: Floats, later: Floats) -> list[Way]:
    """Return a router's operating points, by its estimates of train and of dev."""
    return [
        Way(f"rate {rate:.3g}", routed(known, quality, rate), routed(asked, later, rate))
        for rate in map(float, RATES)
    ]


def rivals_of(
    taught: LearnTable, asked_table: LearnTable, known: Records, asked: Records
) -> dict[str, list[Way]]:
    """Return the operating points of the published kinds of routers."""
    found = {
        name: before_generating(known, asked, *crossfitted(estimates, taught, asked_table))
        for name, estimates in ROUTERS.items()
    }
    return found | {"FrugalGPT's chains": frugal_gpt(taught, asked_table, known, asked)}


def _oracle(records: Records) -> tuple[Floats, Floats]:
    rows = np.arange(len(records))
    chosen = np.argmax(records.score - 1e-6 * records.paid / records.paid.max(), axis=1)
    return records.score[rows, chosen], records.paid[rows, chosen]


def cheapest(ways: Sequence[Way], quality: float) -> Way | None:
    """Return the way that costs least on train among those that reach this quality there."""
    enough = [way for way in ways if way.on_train[0].mean() >= quality]
    return min(enough, key=lambda way: float(way.on_train[1].mean())) if enough else None


@dataclass(frozen=True, slots=True)
class Row:
    """One router at one share of the best single model's quality: its point, run on dev."""

    way: str
    asked: float
    point: str
    quality: Interval
    cost: Interval


@dataclass(frozen=True, slots=True)
class Area:
    """A router's AIQ on dev, and ours less it, paired by query."""

    way: str
    aiq: Interval
    behind: Interval


def main(argv: Sequence[str]) -> int:
    """Print the tables. Returns the exit status."""
    arguments = _arguments(argv)
    pool = POOLS[arguments.pool]
    taught, asked_table, prices = pool_tables(arguments.data, pool, limit=arguments.limit)
    without = tuple(arguments.without.split(",")) if arguments.without else ()
    if arguments.leave is not None:
        taught, asked_table = _apart(taught, asked_table, arguments.leave)
    trained = learnt_on(taught, prices, without)
    known, asked = trained.records, dev_records(trained, asked_table)
    found = ways_of(trained, known, asked)
    if arguments.rivals:
        taught = taught.subset(trained.rows)
        found |= rivals_of(taught, asked_table, known, asked)
    best, lineup = known.lineup.reference, known.lineup
    draw = np.random.default_rng(1).integers(0, len(asked), (_DRAWS, len(asked)))
    rows = list(_rows(found, pool, known, asked, draw))
    ranked = _areas(found, asked, draw[:_AREA_DRAWS])
    told = (
        f"pool {pool.name}: {len(known)} train, {len(asked)} dev queries, {len(lineup.models)} "
        f"models; best single: {lineup.models[best]} "
        f"({asked.score[:, best].mean():.1%} on dev, ${1000 * asked.paid[:, best].mean():.3f}/1k)"
        f"; judged: {', '.join(lineup.models[m] for m in sorted(lineup.judged))}"
        + (f"; without {', '.join(without)}" if without else "")
        + (f"; {arguments.leave} left out of training" if arguments.leave else "")
    )
    if arguments.plot:
        arguments.plot.write_text(_drawn(found, asked), encoding="utf-8")
    if arguments.json:
        kept = {"pool": pool.name, "told": told, "rows": [asdict(row) for row in rows]}
        kept |= {"areas": [asdict(row) for row in ranked], "plot": _drawn(found, asked)}
        print(json.dumps(kept, indent=1))
        return 0
    print(told)
    _print(rows, ranked)
    return 0


def _apart(taught: LearnTable, asked: LearnTable, name: str) -> tuple[LearnTable, LearnTable]:
    """Return train without a dataset or category, and dev's rows of it alone."""

    def inside(table: LearnTable) -> NDArray[np.bool_]:
        both = zip(table.source, table.categories, strict=True)
        return np.array([name in pair for pair in both], dtype=bool)

    if not inside(asked).any():
        known = sorted({*asked.source, *map(str, asked.categories)})
        raise SystemExit(f"--leave: expected one of {', '.join(known)}, found {name!r}")
    return taught.subset(~inside(taught)), asked.subset(inside(asked))


def _rows(
    found: dict[str, list[Way]], pool: Pool, known: Records, asked: Records, draw: NDArray[np.int64]
) -> Iterator[Row]:
    best = known.lineup.reference
    for name, ways in found.items():
        for share in pool.shares:
            way = cheapest(ways, share * float(known.score[:, best].mean()))
            if way is not None:
                quality, usd = way.on_dev
                yield Row(
                    name, share, way.name,
                    _ratio(quality, asked.score[:, best], draw),
                    _ratio(usd, asked.paid[:, best], draw),
                )  # fmt: skip


def _areas(found: dict[str, list[Way]], asked: Records, draw: NDArray[np.int64]) -> list[Area]:
    """Return AIQ from the cheapest single model's cost to the best one's."""
    usd = asked.paid.mean(axis=0)
    span = float(usd.min()), float(usd[asked.lineup.reference])
    singles = found[SINGLES]
    every = {name: areas(ways, singles, span, draw) for name, ways in found.items()}
    return [
        Area(name, _interval(area), _interval(every[OURS] - area)) for name, area in every.items()
    ]


def _interval(values: Floats) -> Interval:
    """Return the first value, with the interval of the others."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Interval(float(values[0]), float(low), float(high))


def _drawn(found: dict[str, list[Way]], asked: Records) -> str:
    best = asked.lineup.reference
    quality, usd = asked.score[:, best].mean(), asked.paid[:, best].mean()
    lines = [
        Line(name, [
            (float(way.on_dev[1].mean() / usd), float(way.on_dev[0].mean() / quality))
            for way in on_hull(ways)
        ])
        for name, ways in found.items()
    ]  # fmt: skip
    return curves(
        lines, across="cost / the best single model's", up="quality / the best single model's"
    )


def _print(rows: Sequence[Row], ranked: Sequence[Area]) -> None:
    table = Table()
    for name in ("way", "asked", "point", "quality on dev / best single's", "cost / best single's"):
        table.add_column(name)
    for row in rows:
        told = (_shown(row.quality), _shown(row.cost))
        table.add_row(row.way, f"{row.asked:.0%}", row.point[:48], *told)
    Console(width=160).print(table)
    table = Table()
    for name in ("way", "AIQ up to the best single's cost", "ours, more than it"):
        table.add_column(name)
    for area in ranked:
        table.add_row(area.way, _shown(area.aiq), _shown(area.behind))
    Console(width=160).print(table)


def _shown(found: Interval) -> str:
    return f"{found:.3f}".replace("[", "\\[")


def _ratio(over: Floats, under: Floats, draw: NDArray[np.int64]) -> Interval:
    found = over[draw].mean(axis=1) / under[draw].mean(axis=1)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(over.mean() / under.mean()), float(low), float(high))


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.router pool", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the outcomes")
    parser.add_argument("--pool", choices=sorted(POOLS), default="zeroeval")
    parser.add_argument("--limit", type=int, help="learn from at most so many queries")
    parser.add_argument(
        "--without", default="", help="families of reply features to leave out: examples,maths,…"
    )
    parser.add_argument("--leave", help="a dataset or category not to learn from, and to run on")
    parser.add_argument("--rivals", action="store_true", help="also the published kinds of routers")
    parser.add_argument("--plot", type=Path, help="an .svg to draw quality over cost in")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
