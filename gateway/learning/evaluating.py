"""What `frugal evaluate` and `frugal certify` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.learning.errors import LearningError
from gateway.learning.sources import Warn, as_files, check_reference, is_ledger, shown, unheard
from gateway.learning.vectors import with_vectors

if TYPE_CHECKING:
    from router.bundled import Bundled
    from router.evaluate import Evaluation
    from router.learn_table import LearnTable

_MOST_MET = 0.2
_LABELLERS = ("exact", "test", "judge")


def evaluate_bundle(
    path: Path, outcomes: Sequence[str], split: str | None, *, warn: Warn = unheard
) -> Evaluation:
    """Measure a bundle. Raises LearningError, or an error of the router's."""
    from router.bundled import load_learnt
    from router.evaluate import evaluate

    bundled = load_learnt(path)
    every = _read(bundled, outcomes, split, warn)
    if (met := _met(bundled, every)) > _MOST_MET:
        warn(f"{_met_told(met)}: what is measured on them flatters; take others")
    table = _complete(bundled, every)
    found = evaluate(bundled.learnt, bundled.operating, table)
    return replace(found, left_out=len(every) - len(table))


def certify_bundle(
    path: Path,
    outcomes: Sequence[str],
    split: str | None,
    *,
    look: int | None,
    labeller: str,
    write: bool,
    labeller_error: float | None = None,
    valid_days: int | None = None,
    repeats: bool = False,
    warn: Warn = unheard,
) -> dict[str, Any]:
    """Walk the bundle's path on new outcomes; write what held, or that nothing did.

    Of a ledger every drawn request counts, and an answer that nobody scored as worse. Prompts of
    the training are refused, unless traffic `repeats` itself and these were asked anew. The
    bundle counts its looks: without a `look` this is the next. Raises LearningError for a bundle
    without a floor, or an error of the router's.
    """
    from router.bundle import load_bundle
    from router.bundled import certificate_of, load_learnt, save_learnt
    from router.drafts import Drafts
    from router.guarantee import share_of_look
    from router.targets import Mix, certify
    from router.train import records_at

    _check_labeller(labeller, labeller_error)
    bundled = load_learnt(path)
    floor, route = bundled.operating.floor, bundled.about.get("route")
    if floor is None:
        raise LearningError(f"{path}: has no quality floor to certify; train it with one")
    made = _looks_made(bundled)
    look = made + 1 if look is None else look
    if look <= made:
        raise LearningError(
            f"--look: {made} were made of this bundle, so this one is {made + 1}; leave it out"
        )
    unscored = 0
    every = _read(bundled, outcomes, split, warn)
    if not repeats:
        _check_unmet(bundled, every)
    if any(map(is_ledger, outcomes)):
        from router.audited import audited

        found = audited(bundled.learnt, every, str(bundled.about["reference"]))
        records, unscored = found.records, found.unscored
    else:
        table = _complete(bundled, every)
        records = records_at(bundled.learnt, table, Drafts.read(table))
    walked = [float(rate) for rate in bundled.about["path"]]
    error = share_of_look(floor.error, look)
    value, beliefs = bundled.learnt.values["floor"], bundled.learnt.beliefs
    rate, certified = certify(floor, value, beliefs, walked, records, error=error)
    data = ", ".join(map(shown, outcomes))
    certificate = certificate_of(floor, certified, rate or 0.0, data=data, route=route)
    if certificate is not None:
        certificate = replace(
            certificate, labeller=labeller, labeller_error=labeller_error, look=look,
            valid_until=_last_day(certificate.date, valid_days),
        )  # fmt: skip
    if write:
        operating = replace(bundled.operating, mix=None if rate is None else Mix(rate, rate))
        about = {**load_bundle(path).about, "looks": look}
        save_learnt(path, bundled.learnt, operating, certificate, about)
    return {
        "certificate": None if certificate is None else asdict(certificate),
        "walked": [asdict(each) | {"rate": walked[each.point]} for each in certified.walked],
        "unscored": unscored,
        "look": look,
    }


def _looks_made(bundled: Bundled) -> int:
    """Return how many certifications were tried; a bundle's training is the first of them."""
    made = bundled.about.get("looks", 1)
    last = 0 if bundled.certificate is None else bundled.certificate.look
    return max(made if isinstance(made, int) else 1, last)


def _last_day(first: str, valid_days: int | None) -> str | None:
    if valid_days is None:
        return None
    return (date.fromisoformat(first) + timedelta(days=valid_days)).isoformat()


def _check_labeller(labeller: str, error: float | None) -> None:
    if labeller not in _LABELLERS:
        raise LearningError(
            f"--labeller: expected one of {', '.join(_LABELLERS)}, not {labeller!r}"
        )
    if labeller == "judge" and error is None:
        raise LearningError(
            "--labeller judge: a certificate names the judge's measured error; give its share of "
            "wrong verdicts with --labeller-error, such as 0.06"
        )
    if error is not None and not 0 <= error < 1:
        raise LearningError(f"--labeller-error: expected a share from 0 to 1, found {error:g}")


def _check_unmet(bundled: Bundled, table: LearnTable) -> None:
    """Refuse requests that the bundle was made of: a bound on them is none."""
    met = _met(bundled, table)
    if met > _MOST_MET:
        raise LearningError(
            f"{_met_told(met)}, so nothing can be certified on them: give outcomes that it has not "
            "seen, or --repeats where the same prompts were asked and answered anew"
        )


def _met(bundled: Bundled, table: LearnTable) -> float:
    from router.seen import MARKS, met_share

    return met_share(bundled.about.get(MARKS, ()), table.queries)


def _met_told(met: float) -> str:
    return f"the bundle was trained on {met:.0%} of these prompts"


def _complete(bundled: Bundled, table: LearnTable) -> LearnTable:
    """Return the requests that every model has a score for."""
    from router.train import complete_rows

    rows = complete_rows(table)
    if not len(rows):
        models = ", ".join(bundled.learnt.models)
        raise LearningError(f"expected requests with a score for each of {models}, found none")
    return table.subset(rows)


def _read(bundled: Bundled, outcomes: Sequence[str], split: str | None, warn: Warn) -> LearnTable:
    from router.learn_table import LearnTable

    models = bundled.learnt.models
    reference = str(bundled.about["reference"])
    with as_files(outcomes, reference=reference, warn=warn) as files:
        table = LearnTable.from_outcomes(files, models=models, split=split, replies=True)
    check_reference(table, reference)
    return with_vectors(table, bundled.about.get("embedder"), lambda what, share: None)[0]
