"""What `frugal train --extend` does: a bundle and probes of a new model in, a bundle out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.learning.errors import LearningError
from gateway.learning.sources import as_files, check_reference, shown
from gateway.learning.training import (
    Asked,
    check_out,
    known_prices,
    manifest_of,
    policy_of,
    target_of,
)
from gateway.learning.vectors import with_vectors

if TYPE_CHECKING:
    from router.bundled import Bundled
    from router.join import Newcomer
    from router.learn_table import LearnTable
    from router.targets import Target

_MOST_MET = 0.5
_MOST_OFF = 0.1

Advance = Callable[[str, float], None]
Warn = Callable[[str], None]
_Row = dict[str, Any]


def extend(
    bundle: Path, name: str, asked: Asked, out: Path, advance: Advance, *, warn: Warn
) -> dict[str, Any]:
    """Let a model join a bundle, and write the longer one; return its manifest's `about`.

    `asked.outcomes` hold the newcomer's probes and, of the same queries, what the bundle's
    models replied; they may lie in several files. Raises LearningError, or an error of the
    router's, for what nobody can join by.
    """
    from router.bundled import load_learnt, save_learnt
    from router.join import check_name, join
    from router.seen import MARKS, marks_of

    if bundle.resolve() == out.resolve():
        raise LearningError(f"--out: expected another folder than the bundle's, found {out}")
    check_out(out)
    bundled = load_learnt(bundle)
    models = bundled.learnt.models
    check_name(bundled.learnt, name)
    policy, _, route = policy_of(asked)
    target = _target(asked, route)
    advance("reading probes", 0.0)
    reference = str(bundled.about["reference"])
    with as_files(asked.outcomes, advance, reference=reference, warn=warn) as files:
        table = probes_of(files, models, name, asked.split)
    check_reference(table, reference)
    advance("reading probes", 1.0)
    price = known_prices(asked, policy, table.of_models((name,))).get(name)
    if price is None:
        raise LearningError(
            f"no price is known of {name}: expected one in --prices FILE or --policy FILE, or "
            "`cost_usd` and tokens in its outcomes"
        )
    table = _with_vectors(table, bundled, asked, advance)
    made = join(
        bundled.learnt, bundled.operating, table, price,
        target=target, seed=asked.seed, advance=advance,
    )  # fmt: skip
    for message in doubts_of(made.newcomer):
        warn(message)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    told = asdict(made.newcomer) | {"date": now, "data": ", ".join(map(shown, asked.outcomes))}
    about = {
        **{key: value for key, value in bundled.about.items() if key not in _WRITTEN_ANEW},
        "created": now,
        "frugal": version("frugal-gateway"),
        "path": list(made.path),
        "extends": bundled.id,
        MARKS: marks_of(table.queries, bundled.about.get(MARKS, ())),
        "joined": [*bundled.about.get("joined", ()), told],
    }
    identity = save_learnt(out, made.learnt, made.operating, None, about)
    return manifest_of(out) | {"id": identity}


_WRITTEN_ANEW = ("models", "operating", "certificate")


def probes_of(
    files: Sequence[Path], models: Sequence[str], name: str, split: str | None
) -> LearnTable:
    """Read several files as one table, of the queries that the newcomer answered alone.

    Raises LearningError where one `query_id` stands for two prompts, or nothing is of the
    newcomer.
    """
    from router.learn_table import LearnTable
    from router.outcomes import COLUMNS, Outcomes

    rows = [row for file in files for row in _rows(file, {*models, name}, split)]
    probed = {row["query_id"] for row in rows if row["model"] == name}
    where = ", ".join(str(file) for file in files)
    if not probed:
        raise LearningError(f"{where}: no replies of model {name!r}")
    rows = [row for row in rows if row["query_id"] in probed]
    _check_prompts(where, rows)
    # A query is read from its first row, and a file of replies may leave the prompts out.
    rows.sort(key=lambda row: not (row.get("prompt") or row.get("messages")))
    if not (rows[0].get("prompt") or rows[0].get("messages")):
        raise LearningError(f"{where}: expected a prompt or messages with the probes, found none")
    present = [column for column in COLUMNS if any(column in row for row in rows)]
    return LearnTable.from_rows(
        Outcomes({column: [row.get(column) for row in rows] for column in present}),
        (*models, name),
    )


def _rows(file: Path, models: set[str], split: str | None) -> Iterator[_Row]:
    from router.outcomes import read_outcomes

    read = read_outcomes(file, split=split, allow_repeats=True)
    names = tuple(read.columns)
    for values in zip(*read.columns.values(), strict=True):
        row = dict(zip(names, values, strict=True))
        if row["model"] in models:
            yield row


def _check_prompts(where: str, rows: Sequence[_Row]) -> None:
    prompts: dict[str, str] = {}
    for row in rows:
        prompt = row.get("prompt")
        if prompt and prompts.setdefault(row["query_id"], prompt) != prompt:
            raise LearningError(
                f"{where}: query {row['query_id']!r} has two prompts; number queries alike in all "
                "files, and different ones differently"
            )


def _target(asked: Asked, route: Any) -> Target | None:
    """Return the target that was asked for; None where the bundle's own stays."""
    named = (asked.max_quality_loss, asked.max_usd_per_1k, asked.usd_per_quality_point)
    own = route.cascade.target if route and route.cascade else None
    if own is None and all(value is None for value in named):
        return None
    return target_of(asked, route)


def _with_vectors(
    table: LearnTable, bundled: Bundled, asked: Asked, advance: Advance
) -> LearnTable:
    """Embed the prompts as the bundle's were. Raises LearningError for another embedder."""
    about: Mapping[str, Any] = bundled.about
    own, kept = about.get("embedder"), about.get("embedder_version") or ""
    if asked.embedder is not None and asked.embedder != (own or "none"):
        raise LearningError(
            f"--embedder: the bundle was trained with {own or 'none'}, found {asked.embedder}; "
            "leave it out, or train again"
        )
    table, found = with_vectors(table, own, advance)
    if found != kept:
        raise LearningError(
            f"the bundle was trained with version {kept or 'none'} of its embedder, this machine "
            f"has {found or 'none'}; install that one, or train again"
        )
    return table


def doubts_of(newcomer: Newcomer) -> Iterator[str]:
    """Yield what an operator should know before trusting a newcomer."""
    name = newcomer.model
    if newcomer.met > _MOST_MET:
        yield (
            f"the bundle was trained on {newcomer.met:.0%} of the probes' prompts, so what it says "
            f"of the others there flatters, and {name} is weighed against that: take fresh ones"
        )
    if newcomer.judged is None:
        yield f"drafts of {name} are not judged: it answers live, or not at all"
    elif abs(newcomer.judged - newcomer.mean_score) > _MOST_OFF:
        yield (
            f"drafts of {name} are taken to be right in {newcomer.judged:.0%}, and are in "
            f"{newcomer.mean_score:.0%}: train again when there are more outcomes of it"
        )
