"""The heavy part of learning, in a process of its own that cannot hurt serving.

    python -m gateway.learning.labour       a job as one line of JSON in, its result out

It gives way to everybody else, keeps to one thread, and ends with the process that
started it. Learning sees drawn requests alone: others were chosen by the policy of the day.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.learning.book import Book, OutcomeRow
from gateway.learning.exporting import told
from gateway.learning.traffic import traffic_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from router.bundled import Bundled
    from router.costs import Price
    from router.guarantee import Certified
    from router.learn_table import LearnTable
    from router.online.promotion import Estimated
    from router.online.traffic import Asked
    from router.targets import Target
    from router.value_fit import Records

    Floats = NDArray[np.float64]

_NICE = 15
_RAREST_LABEL = 0.05


class Span(msgspec.Struct, frozen=True):
    """The audits of a route that a job is about, and the models it knows."""

    url: str
    route: str
    tiers: tuple[str, ...]
    reference: str
    since_us: int
    until_us: int


class Training(msgspec.Struct, frozen=True, tag="train"):
    """To learn a bundle. One of `max_loss`, `usd_per_1k` and `usd_per_point` is what it is for.

    `prices` are dollars a million tokens in and out.
    """

    span: Span
    out: str
    prices: dict[str, tuple[float, float]]
    max_loss: float | None = None
    certainty: float = 0.95
    usd_per_1k: float | None = None
    usd_per_point: float | None = None


class Weighing(msgspec.Struct, frozen=True, tag="weigh"):
    """To weigh a bundle against what runs: a former bundle at a rate, or an acceptance.

    `acceptance` None: the reference answers alone. `error` is what this look may spend of the
    floor's, None where there is none.
    """

    span: Span
    bundle: str
    id: str
    error: float | None = None
    max_loss: float | None = None
    certainty: float = 0.95
    usd_per_point: float | None = None
    acceptance: dict[str, Any] | None = None
    former: tuple[str, str, float] | None = None


def train_bundle(job: Training) -> dict[str, Any]:
    """Learn a bundle from a span's audits; return where it is, and its id. Raises RouterError."""
    from router.bundled import save_learnt
    from router.seen import MARKS, marks_of
    from router.train import Task, train

    span = job.span
    with tempfile.TemporaryDirectory(prefix="frugal-learning-") as folder:
        table = _table(span, audits_of(span), Path(folder))
    task = Task(span.tiers, span.reference, _target(job), _prices(job), span.route, held_out=0.0)
    trained = train(table, task)
    about = {
        "route": span.route,
        "reference": span.reference,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "frugal": version("frugal-gateway"),
        "data": f"audits of {span.route}, {_day(span.since_us)} to {_day(span.until_us)}",
        "path": list(trained.path),
        "counts": dict(trained.counts),
        MARKS: marks_of(table.queries),
    }
    identity = save_learnt(Path(job.out), trained.learnt, trained.operating, None, about)
    return {"path": job.out, "id": identity, "counts": dict(trained.counts)}


def weigh_bundle(job: Weighing) -> dict[str, Any]:
    """Certify a bundle's path on audits that it has not seen, and estimate what it would change.

    Raises RouterError.
    """
    from dataclasses import asdict, replace

    import numpy as np

    from router.bundled import load_learnt
    from router.online.promotion import Weighed, doubly_robust, estimated, why_not
    from router.targets import Mix
    from router.train import early_at
    from router.value_fit import simulate

    rows = audits_of(job.span)
    bundled = load_learnt(Path(job.bundle), pinned=job.id)
    with tempfile.TemporaryDirectory(prefix="frugal-learning-") as folder:
        table = _table(job.span, rows, Path(folder))
        records, known = _records(bundled, table)
        rate, certified = _rate(job, bundled, records)
        value = bundled.learnt.values[bundled.operating.objective]
        run = simulate(value, bundled.learnt.beliefs, records, rate)
        set_so = replace(bundled.operating, mix=Mix(rate, rate))
        own = table.of_models(bundled.learnt.models)
        early = early_at(bundled.learnt, set_so, own, records)
        former = _former(job, table, rows)
    seen = np.where(known[np.arange(len(table)), run.served], run.quality(records), np.nan)
    guessed = records.first[np.arange(len(table)), run.served]
    quality = doubly_robust(seen, guessed, _label_chance(seen)) - former.quality
    chance = former.propensity
    weighed = Weighed(
        estimated(run.usd - former.usd, chance),
        estimated(quality, chance),
        None if certified is None else certified.chosen is not None,
    )
    why = why_not(weighed, usd_per_point=job.usd_per_point)
    chosen = certified.chosen if certified else None
    return {
        "why_not": why,
        "rate": rate,
        "early": early,
        "usd": _told(weighed.usd),
        "quality": _told(weighed.quality),
        "reference_share": float(run.called[:, records.lineup.reference].mean()),
        "certificate": None if chosen is None else asdict(chosen) | _provenance(job, rows),
        "audits": len(table),
    }


def _provenance(job: Weighing, rows: Sequence[OutcomeRow]) -> dict[str, Any]:
    from router.online.traffic import provenance

    return provenance(traffic_of(rows, job.span.reference, judged_so=False))


def audits_of(span: Span) -> list[OutcomeRow]:
    """Return the outcomes of drawn requests whose texts were kept. Raises LedgerError."""
    book = Book(span.url)
    try:
        rows = book.rows(span.route, since_us=span.since_us)
    finally:
        book.close()
    known = {*span.tiers}
    return [
        row
        for row in rows
        if row.drawn
        and row.at_us <= span.until_us
        and row.reference == span.reference
        and row.model in known
        and row.messages is not None
        and row.response is not None
    ]


def _table(span: Span, rows: Sequence[OutcomeRow], folder: Path) -> LearnTable:
    from router.learn_table import LearnTable
    from router.types import RouterError

    if not rows:
        raise RouterError("no audits with their texts: privacy.store_texts keeps them")
    file = folder / "audits.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(told(row), ensure_ascii=False) + "\n")
    return LearnTable.from_outcomes([file], models=span.tiers, replies=True)


def _target(job: Training) -> Target:
    from router.guarantee import Floor
    from router.targets import PriceOfQuality, QualityLoss, Spend

    if job.usd_per_1k is not None:
        return Spend(job.usd_per_1k)
    if job.usd_per_point is not None:
        return PriceOfQuality(job.usd_per_point)
    assert job.max_loss is not None, "a job to train names what for"
    return QualityLoss(Floor(job.max_loss, job.certainty))


def _prices(job: Training) -> dict[str, Price]:
    from router.costs import Price

    today = datetime.now(UTC).date()
    return {name: Price(*each, today) for name, each in job.prices.items()}


def _records(bundled: Bundled, table: LearnTable) -> tuple[Records, NDArray[np.bool_]]:
    """Return the records of audits, and whose scores are known: an unknown one is a loss."""
    from router.audited import audited

    found = audited(bundled.learnt, table, str(bundled.about["reference"]))
    return found.records, found.known


def _rate(job: Weighing, bundled: Bundled, records: Records) -> tuple[float, Certified | None]:
    from router.guarantee import Floor
    from router.targets import certify

    if job.error is None or job.max_loss is None:
        mix, rates = bundled.operating.mix, bundled.learnt.values["quality"].rates
        return (mix.rate if mix else rates[len(rates) // 2]), None
    walked = [float(rate) for rate in bundled.about["path"]]
    floor, learnt = Floor(job.max_loss, job.certainty), bundled.learnt
    rate, certified = certify(
        floor, learnt.values["floor"], learnt.beliefs, walked, records, error=job.error
    )
    return (walked[0] if rate is None else rate), certified


class _Former(msgspec.Struct, frozen=True):
    """What runs now: its price and its quality a request, and how each request was drawn."""

    usd: Floats
    quality: Floats
    propensity: Floats


def _former(job: Weighing, table: LearnTable, rows: Sequence[OutcomeRow]) -> _Former:
    import numpy as np

    by_id = {each.id: each for each in traffic_of(rows, job.span.reference, judged_so=False)}
    asked = [by_id[each] for each in table.ids]
    drawn = np.array([each.propensity or 1.0 for each in asked])
    if job.former is not None:
        usd, quality = _by_bundle(job.former, table)
        return _Former(usd, quality, drawn)
    usd, quality = _by_acceptance(job, asked)
    return _Former(usd, quality, drawn)


def _by_bundle(former: tuple[str, str, float], table: LearnTable) -> tuple[Floats, Floats]:
    import numpy as np

    from router.bundled import load_learnt
    from router.online.promotion import doubly_robust
    from router.value_fit import simulate

    path, identity, rate = former
    bundled = load_learnt(Path(path), pinned=identity)
    records, known = _records(bundled, table)
    value = bundled.learnt.values[bundled.operating.objective]
    run = simulate(value, bundled.learnt.beliefs, records, rate)
    places = np.arange(len(table)), run.served
    seen = np.where(known[places], run.quality(records), np.nan)
    return run.usd, doubly_robust(seen, records.first[places], _label_chance(seen))


def _by_acceptance(job: Weighing, asked: Sequence[Asked]) -> tuple[Floats, Floats]:
    import numpy as np

    from router.online.promotion import doubly_robust
    from router.online.standing import acceptance_of
    from router.online.thresholds import way_of
    from router.online.traffic import mean_reference_usd

    usual = mean_reference_usd(asked)
    if job.acceptance is None:
        usd = [each.reference_usd if each.reference_usd is not None else usual for each in asked]
        return np.array(usd), np.ones(len(asked))
    acceptance = acceptance_of(job.acceptance)
    last = [tier for tier in job.span.tiers if tier != job.span.reference][-1]
    ways = [way_of(each, acceptance, last, usual) for each in asked]
    seen = np.array([1.0 if w.served is None else _known(w.served.score) for w in ways])
    guessed = np.array([
        1.0 if w.served is None else acceptance.quality(w.served.model, w.served.raw or 0.0)
        for w in ways
    ])  # fmt: skip
    return np.array([w.usd for w in ways]), doubly_robust(seen, guessed, _label_chance(seen))


def _known(score: float | None) -> float:
    return float("nan") if score is None else score


def _label_chance(seen: Floats) -> Floats:
    """Return the chance that an answer served was judged: as often as the others were."""
    import numpy as np

    share = float((~np.isnan(seen)).mean()) if len(seen) else 1.0
    return np.full(len(seen), max(share, _RAREST_LABEL))


def _told(found: Estimated) -> list[float]:
    return [found.mean, found.low, found.high]


def _day(at_us: int) -> date:
    return datetime.fromtimestamp(at_us / 1e6, UTC).date()


_JOBS: Mapping[type, Callable[[Any], dict[str, Any]]] = {
    Training: train_bundle,
    Weighing: weigh_bundle,
}


def _work() -> None:
    from gateway.money.errors import LedgerError
    from router.types import RouterError

    os.nice(_NICE)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Training | Weighing)
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = _JOBS[type(job)](job)
    except (LedgerError, RouterError, OSError) as exc:
        result = {"error": str(exc)}
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    _work()
