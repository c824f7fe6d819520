"""What `frugal evaluate` and `frugal certify` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.learning.errors import LearningError
from gateway.learning.sources import as_files, shown
from gateway.learning.vectors import with_vectors

if TYPE_CHECKING:
    from router.bundled import Bundled
    from router.evaluate import Evaluation
    from router.learn_table import LearnTable

_LABELLERS = ("exact", "test", "judge")


def evaluate_bundle(path: Path, outcomes: Sequence[str], split: str | None) -> Evaluation:
    """Measure a bundle. Raises LearningError, or an error of the router's."""
    from router.bundled import load_learnt
    from router.evaluate import evaluate

    bundled = load_learnt(path)
    return evaluate(bundled.learnt, bundled.operating, _table(bundled, outcomes, split))


def certify_bundle(
    path: Path,
    outcomes: Sequence[str],
    split: str | None,
    *,
    look: int,
    labeller: str,
    write: bool,
) -> dict[str, Any]:
    """Walk the bundle's path on new outcomes; write what held, or that nothing did.

    Raises LearningError for a bundle without a floor, or an error of the router's.
    """
    from router.bundle import load_bundle
    from router.bundled import certificate_of, load_learnt, save_learnt
    from router.drafts import Drafts
    from router.guarantee import share_of_look
    from router.targets import Mix, certify
    from router.train import records_at

    if labeller not in _LABELLERS:
        raise LearningError(
            f"--labeller: expected one of {', '.join(_LABELLERS)}, not {labeller!r}"
        )
    bundled = load_learnt(path)
    floor, route = bundled.operating.floor, bundled.about.get("route")
    if floor is None:
        raise LearningError(f"{path}: has no quality floor to certify; train it with one")
    table = _table(bundled, outcomes, split)
    records = records_at(bundled.learnt, table, Drafts.read(table))
    walked = [float(rate) for rate in bundled.about["path"]]
    error = floor.error if look == 1 else share_of_look(floor.error, look)
    value, beliefs = bundled.learnt.values["floor"], bundled.learnt.beliefs
    rate, certified = certify(floor, value, beliefs, walked, records, error=error)
    data = ", ".join(map(shown, outcomes))
    certificate = certificate_of(floor, certified, rate or 0.0, data=data, route=route)
    if certificate is not None:
        certificate = replace(certificate, labeller=labeller, look=look)
    if write:
        operating = replace(bundled.operating, mix=None if rate is None else Mix(rate, rate))
        about = dict(load_bundle(path).about)
        save_learnt(path, bundled.learnt, operating, certificate, about)
    return {
        "certificate": None if certificate is None else asdict(certificate),
        "walked": [asdict(each) | {"rate": walked[each.point]} for each in certified.walked],
    }


def _table(bundled: Bundled, outcomes: Sequence[str], split: str | None) -> LearnTable:
    from router.learn_table import LearnTable
    from router.train import complete_rows

    models = bundled.learnt.models
    with as_files(outcomes) as files:
        table = LearnTable.from_outcomes(files, models=models, split=split, replies=True)
    rows = complete_rows(table)
    if not len(rows):
        raise LearningError(
            f"expected requests with a score for each of {', '.join(models)}, found none"
        )
    table = table.subset(rows)
    return with_vectors(table, bundled.about.get("embedder"), lambda what, share: None)[0]
