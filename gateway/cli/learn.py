"""`frugal train`, `predict`, `evaluate`, `certify`: a learned cascade from its outcomes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.learning.training import Asked
    from router.evaluate import Evaluation

_WANTING, _MISUSED = 1, 2

Outcomes = Annotated[
    list[str],
    typer.Option(
        "--outcomes",
        help="Parquet, jsonl, a folder of them, or a ledger: sqlite:///frugal.db#route, "
        "postgresql://…#route. May be repeated.",
    ),
]
Split = Annotated[str | None, typer.Option(help="Read only this split, such as train.")]
BundlePath = Annotated[Path, typer.Option("--bundle", help="A folder made by frugal train.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]


def train(
    outcomes: Outcomes,
    out: Annotated[Path, typer.Option(help="Where the bundle is written.")],
    policy: Annotated[
        Path | None, typer.Option(help="Take tiers, target and prices from this policy.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="The policy's route; its only one.")] = None,
    tiers: Annotated[
        str | None, typer.Option(help="Models, cheapest first: a,b,c. Default: all, by cost.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Default: the tier with the best mean score.")
    ] = None,
    max_quality_loss: Annotated[float | None, typer.Option(help="Target, such as 0.02.")] = None,
    certainty: Annotated[float, typer.Option(help="Of the quality loss.")] = 0.95,
    max_usd_per_1k: Annotated[float | None, typer.Option(help="Target: dollars.")] = None,
    usd_per_quality_point: Annotated[float | None, typer.Option(help="Target: dollars.")] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help='JSON: {"model": {"input": 0.15, "output": 0.60}}, $ per million.'),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(help="Embedding model, none for words alone. Default: all-MiniLM-L6-v2."),
    ] = None,
    split: Split = None,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    extend: Annotated[
        Path | None, typer.Option(help="Add --model to this bundle instead, and keep the rest.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With --extend: the model that joins.")] = None,
    as_json: AsJson = False,
) -> None:
    """Learn a cascade from outcomes, solve its target, and write a bundle.

    With --extend a model joins a bundle by 100 to 200 probes: its replies to prompts of which
    the replies of the bundle's models are in --outcomes, too.

    Example: frugal train --outcomes sqlite:///frugal.db#auto --policy policy.yaml --out new

    Example: frugal train --extend new --model mini --outcomes probes.jsonl --out newer
    """
    from gateway.learning.joining import extend as extend_bundle
    from gateway.learning.training import Asked, learn

    with _told():
        asked = Asked(
            outcomes=tuple(outcomes),
            split=split,
            policy=policy,
            route=route,
            tiers=tuple(part.strip() for part in (tiers or "").split(",") if part.strip()),
            reference=reference,
            max_quality_loss=max_quality_loss,
            certainty=certainty,
            max_usd_per_1k=max_usd_per_1k,
            usd_per_quality_point=usd_per_quality_point,
            prices=prices,
            embedder=embedder,
            seed=seed,
        )
        _check_joining(extend, model, asked)
        with _progress() as advance:
            if extend is not None and model is not None:
                made = extend_bundle(extend, model, asked, out, advance, warn=_warn)
            else:
                made = learn(asked, out, advance, warn=_warn)
    if as_json:
        print(json.dumps(made, indent=1))
    elif extend is not None:
        _show_joined(made, out)
    else:
        _show_made(made, out)


def _check_joining(extend: Path | None, model: str | None, asked: Asked) -> None:
    """Refuse half of a joining, and what a bundle has settled already. Raises LearningError."""
    from gateway.learning.errors import LearningError

    if (extend is None) != (model is None):
        raise LearningError("expected --extend BUNDLE and --model NAME together, found one of them")
    if extend is not None and (asked.tiers or asked.reference):
        raise LearningError(
            "--tiers, --reference: the bundle has them already; leave them out with --extend"
        )


def predict(
    bundle: BundlePath,
    input: Annotated[
        Path, typer.Option("--input", help="Rows with prompt or messages; replies if there are.")
    ],
    output: Annotated[Path, typer.Option(help="Where rows go: .jsonl or .parquet.")],
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Operating points to decide at, beside the bundle's own. Repeatable."),
    ] = None,
) -> None:
    """Foretell quality and cost of prompts (and replies), and what would be done with them.

    A row a query and model: `predicted_quality` is the best estimate there is, from the
    reply where the input holds one (beside the other replies to that query), else from the
    prompt; `quality_before` is always from the prompt.

    Example: frugal predict --bundle bundles/auto --input prompts.jsonl --output foretold.jsonl
    """
    from gateway.learning.predicting import foretell_file

    with _told():
        count = foretell_file(bundle, input, output, rate or [])
    print(f"{count} rows written to {output}", file=sys.stderr)


def evaluate(
    bundle: BundlePath, outcomes: Outcomes, split: Split = None, as_json: AsJson = False
) -> None:
    """Measure a bundle on outcomes that it was not trained on.

    Example: frugal evaluate --bundle bundles/auto --outcomes held-out.parquet
    """
    from gateway.learning.evaluating import evaluate_bundle

    with _told():
        found = evaluate_bundle(bundle, outcomes, split, warn=_warn)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(found), indent=1))
    else:
        _show_evaluation(found)


def certify(
    bundle: BundlePath,
    outcomes: Outcomes,
    split: Split = None,
    look: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The how-many-th certification, the error being spent over all. Default: next.",
        ),
    ] = None,
    labeller: Annotated[str, typer.Option(help="Who scored: exact, test or judge.")] = "exact",
    labeller_error: Annotated[
        float | None, typer.Option(help="A judge's measured share of wrong verdicts.")
    ] = None,
    valid_days: Annotated[
        int | None,
        typer.Option(min=1, max=3650, help="Then it lapses, and the reference answers."),
    ] = None,
    repeats: Annotated[
        bool, typer.Option("--repeats", help="Prompts of the training were asked anew: take them.")
    ] = False,
    write: Annotated[bool, typer.Option(help="Put the certificate into the bundle.")] = True,
    as_json: AsJson = False,
) -> None:
    """Certify a bundle's quality floor on outcomes it has not seen; exit 1 where nothing holds.

    Of a ledger every drawn request counts; an answer that nobody scored counts as worse. Of
    files, requests without a score for every tier are left out.

    Example: frugal certify --bundle bundles/auto --outcomes audits.parquet
    """
    from gateway.learning.evaluating import certify_bundle

    with _told():
        found = certify_bundle(
            bundle, outcomes, split, look=look, labeller=labeller, write=write,
            labeller_error=labeller_error, valid_days=valid_days, repeats=repeats,
            warn=_warn,
        )  # fmt: skip
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _show_certificate(found)
    if found["certificate"] is None:
        raise typer.Exit(_WANTING)


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong in one line, and leave with the code for misuse."""
    from gateway.learning.errors import LearningError
    from router.types import RouterError

    try:
        yield
    except (LearningError, RouterError) as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    except OSError as exc:
        print(f"{exc.filename or 'a file'}: {exc.strerror or exc}", file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc


def _warn(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        tasks: dict[str, Any] = {}

        def advance(what: str, share: float) -> None:
            if what not in tasks:
                for done in tasks.values():
                    progress.update(done, completed=1.0)
                tasks[what] = progress.add_task(what, total=1.0)
            progress.update(tasks[what], completed=share)

        yield advance
        for done in tasks.values():
            progress.update(done, completed=1.0)


def _show_made(made: dict[str, Any], out: Path) -> None:
    counts = made["counts"]
    print(f"{out}: {', '.join(f'{value} {name}' for name, value in counts.items())}")
    print(f"tiers: {', '.join(made['models'])}; reference: {made['reference']}")
    certificate = made.get("certificate")
    if made["operating"]["floor"] is not None:
        _show_certificate({"certificate": certificate})
    print(f"id: {made['id']}")


def _show_joined(made: dict[str, Any], out: Path) -> None:
    newcomer = made["joined"][-1]
    way = "are not judged" if newcomer["judged"] is None else "are judged"
    print(
        f"{out}: {newcomer['model']} joined by {newcomer['probes']} probes, "
        f"{newcomer['mean_score']:.1%} right; its drafts {way}"
    )
    print(f"tiers: {', '.join(made['models'])}; reference: {made['reference']}")
    if made["operating"]["floor"] is not None:
        print("nothing is certified of these tiers: the reference answers until `frugal certify`")
    print(f"id: {made['id']}")


def _show_certificate(found: dict[str, Any]) -> None:
    kept = found["certificate"]
    if found.get("unscored"):
        print(f"{found['unscored']} requests have answers that nobody scored: they count as worse")
    if kept is None:
        print("nothing could be certified: the reference answers every request")
        return
    print(
        f"certified: with probability {kept['certainty']:.0%} at most {kept['max_loss']:.2%} of "
        f"all answers are worse than the reference's (seen {kept['losses']} of {kept['count']}, "
        f"bound {kept['bound']:.2%}), on {kept['data']}, {kept['date']}"
        + (f", valid until {kept['valid_until']}" if kept.get("valid_until") else "")
    )


def _show_target(found: Evaluation) -> None:
    from router.targets import Spend

    if isinstance(found.solved_for, Spend):
        own = next(row for row in found.rows if row.way == "as it is set")
        print(
            f"its rate was solved for ${found.solved_for.usd_per_1k:g} per 1,000 requests; on "
            f"these it spends ${own.usd_per_1k:.4g}, and a gateway keeps to what its policy asks"
        )
    elif found.solved_for is not None:
        print(f"its rate was solved for ${found.solved_for.usd_per_point:g} per point of quality")


def _show_evaluation(found: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    ways = Table(title=f"{found.count} requests, reference {found.reference}")
    if found.left_out:
        print(f"{found.left_out} requests without a score for every tier are left out")
    columns = ("way", "quality", "gap to reference", "$/1k", "cost", "worse", "reference", "calls")
    for name in columns:
        ways.add_column(name, justify="left" if name == "way" else "right")
    for row in found.rows:
        quality, gap = row.quality, row.gap
        ways.add_row(
            row.way,
            f"{quality.mean:.1%} [{quality.low:.1%}, {quality.high:.1%}]",
            f"{gap.mean:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}]",
            f"{row.usd_per_1k:.4f}",
            f"{row.of_reference:.1%}",
            f"{row.loss:.1%}",
            f"{row.reference_share:.0%}",
            f"{row.calls:.2f}",
        )
    console.print(ways)
    _show_target(found)
    models = Table(title="single models")
    for name in ("model", "score", "$/1k", "AUROC before", "AUROC after", "Brier", "ECE"):
        models.add_column(name, justify="left" if name == "model" else "right")
    for each in found.models:
        models.add_row(
            each.model,
            f"{each.mean_score:.1%}",
            f"{each.usd_per_1k:.4f}",
            *(
                "-" if value != value else f"{value:.3f}"
                for value in (
                    each.auroc_before,
                    each.auroc_after,
                    each.brier_after,
                    each.ece_after,
                )
            ),
        )
    console.print(models)
