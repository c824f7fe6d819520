"""The agreement cascade on recorded replies of real models, through the real gateway.

    python -m bench.router_recorded --data ../data/zeroeval_gsm8k --prices ../data/prices.json

Two small models answer; where their final answers differ, the large one is
asked. Which two is chosen on one split (`--choose-on train`) and reported on
another (`--split dev`). Every prompt goes over HTTP to the gateway in this
process, once for each way; scores are the table's, costs and tokens come from
the gateway's ledger. `mix` is the fair rival: sending a random share of the
requests to the large model and the rest to the small, at the cascade's cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.in_process import in_process
from bench.intervals import Estimate, bootstrap
from bench.pairs import Pair, Prices, choose_pair
from policies.loader import load_policy
from policies.schema import Policy
from router.outcome_files import files_of
from router.outcomes import Outcomes, read_outcomes

WAYS = {"always small": "small", "always second": "second", "always large": "large",
        "cascade": "auto"}  # fmt: skip
_COLUMNS = ("prompt", "response", "score", "prompt_tokens", "completion_tokens")
_POLICY = Path(__file__).parent / "policies" / "gsm8k-agreement.yaml"


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt as one way answered it; tokens and dollars of every call that it took."""

    score: float
    cost_usd: float
    tokens: int
    escalated: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What one way came to."""

    way: str
    accuracy: Estimate
    against_large: Estimate
    usd_per_1k: Estimate
    cost_share: float
    tokens: float
    escalated: float


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    data: str
    split: str
    queries: int
    models: Mapping[str, str]
    chosen: Pair | None
    rows: Sequence[Row]
    mix_accuracy: float


def main(argv: Sequence[str] | None = None) -> int:
    """Choose, run and print. Returns the exit status."""
    arguments = _arguments(argv)
    prices: Prices = json.loads(arguments.prices.read_text())["models_usd_per_1M"]
    chosen = None
    if arguments.small is None:
        chosen, _ = choose_pair(
            read_outcomes(arguments.data, columns=_COLUMNS, split=arguments.choose_on),
            prices,
            large=arguments.large,
            max_price_share=arguments.max_price_share,
            max_loss=arguments.max_loss,
        )
        arguments.small, arguments.second = chosen.small, chosen.second
    models = {name: getattr(arguments, name) for name in ("small", "second", "large")}
    table = read_outcomes(
        arguments.data, columns=_COLUMNS, models=set(models.values()), split=arguments.split
    )
    policy = load_policy(arguments.policy, _environment(arguments, models))
    report = _report(arguments, models, chosen, asyncio.run(_run(policy, models, table)))
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _print(report)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with one table a split")
    parser.add_argument("--prices", type=Path, required=True, help="JSON with models_usd_per_1M")
    parser.add_argument("--policy", type=Path, default=_POLICY)
    parser.add_argument("--large", default="gpt-4o-2024-08-06")
    parser.add_argument("--small", help="with --second: these two, instead of choosing")
    parser.add_argument("--second")
    parser.add_argument("--split", default="dev", help="the split reported on")
    parser.add_argument("--choose-on", default="train", help="the split the pair is chosen on")
    parser.add_argument("--max-loss", type=float, default=0.005,
                        help="accuracy the choice may lose against the large model")  # fmt: skip
    parser.add_argument("--max-price-share", type=float, default=0.03,
                        help="price of a small model, as a share of the large one's")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    if (arguments.small is None) != (arguments.second is None):
        parser.error("--small and --second go together")
    if arguments.small is None and arguments.choose_on == arguments.split:
        parser.error("--choose-on and --split must differ, or the figures flatter the choice")
    return arguments


def _environment(arguments: argparse.Namespace, models: Mapping[str, str]) -> dict[str, str]:
    [split] = files_of(arguments.data, arguments.split)
    return {
        "OUTCOMES": str(split.resolve()),
        "PRICES": str(arguments.prices.resolve()),
        **{name.upper(): model for name, model in models.items()},
    }


async def _run(
    policy: Policy, models: Mapping[str, str], table: Outcomes
) -> dict[str, list[Answered]]:
    """Send every prompt each way."""
    recorded = {(row.model, row.prompt): (row.response, row.score) for row in table}
    prompts = sorted({row.prompt for row in table if row.prompt is not None})
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    answered: dict[str, list[Answered]] = {}
    with tempfile.TemporaryDirectory(prefix="frugal-bench-") as folder:
        ledger = Path(folder) / "ledger.db"
        served: dict[str, list[_Served]] = {}
        async with in_process(policy, ledger=f"sqlite:///{ledger}") as client:
            with Progress(*columns, console=Console(stderr=True)) as progress:
                for way, model in WAYS.items():
                    following = progress.track(prompts, description=way)
                    served[way] = [await _ask(client, model, prompt) for prompt in following]
        spent = _ledger(ledger)
        for way, replies in served.items():
            answered[way] = [
                _answered(reply, prompt, models, recorded, spent)
                for reply, prompt in zip(replies, prompts, strict=True)
            ]
    return answered


@dataclass(frozen=True, slots=True)
class _Served:
    text: str
    model: str
    path: str
    request_id: str


async def _ask(client: httpx.AsyncClient, model: str, prompt: str) -> _Served:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    response = await client.post("/v1/chat/completions", json=body)
    if response.is_error:
        raise RuntimeError(f"{model} answered {response.status_code}: {response.text}")
    return _Served(
        text=response.json()["choices"][0]["message"]["content"],
        model=response.headers["x-frugal-model"],
        path=response.headers["x-frugal-path"],
        request_id=response.headers["x-request-id"],
    )


def _answered(
    served: _Served,
    prompt: str,
    models: Mapping[str, str],
    recorded: Mapping[tuple[str, str | None], tuple[str | None, float | None]],
    spent: Mapping[str, tuple[float, int]],
) -> Answered:
    text, score = recorded[models[served.model], prompt]
    if served.text != text or score is None:
        raise RuntimeError(f"{served.model} did not give its recorded reply to {prompt!r}")
    cost, tokens = spent[served.request_id]
    return Answered(score, cost, tokens, ":escalated" in served.path)


def _ledger(path: Path) -> dict[str, tuple[float, int]]:
    """Return dollars and tokens of each request."""
    query = "SELECT request_id, cost_nano_usd, input + output FROM entry"
    with closing(sqlite3.connect(path)) as ledger:
        return {request: (nano / 1e9, tokens) for request, nano, tokens in ledger.execute(query)}


def _report(
    arguments: argparse.Namespace,
    models: Mapping[str, str],
    chosen: Pair | None,
    answered: Mapping[str, Sequence[Answered]],
) -> Report:
    rows = {way: _row(way, found, answered["always large"]) for way, found in answered.items()}
    small, large = rows["always small"], rows["always large"]
    spread = large.usd_per_1k.mean - small.usd_per_1k.mean
    share = (rows["cascade"].usd_per_1k.mean - small.usd_per_1k.mean) / spread
    mix = small.accuracy.mean + share * (large.accuracy.mean - small.accuracy.mean)
    return Report(
        data=arguments.data.name,
        split=arguments.split,
        queries=len(answered["cascade"]),
        models=models,
        chosen=chosen,
        rows=list(rows.values()),
        mix_accuracy=mix,
    )


def _row(way: str, found: Sequence[Answered], large: Sequence[Answered]) -> Row:
    differences = [one.score - other.score for one, other in zip(found, large, strict=True)]
    cost = bootstrap([one.cost_usd * 1000 for one in found])
    return Row(
        way=way,
        accuracy=bootstrap([one.score for one in found]),
        against_large=bootstrap(differences),
        usd_per_1k=cost,
        cost_share=sum(one.cost_usd for one in found) / sum(one.cost_usd for one in large),
        tokens=sum(one.tokens for one in found) / len(found),
        escalated=sum(one.escalated for one in found) / len(found),
    )


def _print(report: Report) -> None:
    title = f"{report.data}, {report.split}: {report.queries} queries, 95 % bootstrap intervals"
    table = Table(title=title)
    headings = ("way", "accuracy %", "against large, points", "$ per 1,000", "cost", "tokens",
                "escalated")  # fmt: skip
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in report.rows:
        table.add_row(
            row.way,
            row.accuracy.shown(100),
            row.against_large.shown(100, sign="+"),
            row.usd_per_1k.shown(digits=3),
            f"{row.cost_share:.1%}",
            f"{row.tokens:.0f}",
            f"{row.escalated:.1%}",
        )
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(", ".join(f"{name} = {model}" for name, model in report.models.items()))
    if report.chosen is not None:
        chosen = report.chosen
        console.print(
            f"chosen on the other split: accuracy {chosen.accuracy:.1%} at {chosen.cost_share:.1%} "
            f"of the cost, {chosen.escalated:.1%} escalated"
        )
    console.print(f"mix of small and large at the cascade's cost: {report.mix_accuracy:.1%}")


if __name__ == "__main__":
    sys.exit(main())
