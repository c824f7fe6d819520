"""The outcomes in the ledger, as the decision about learning sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

import msgspec

from gateway.learning.book import OutcomeRow
from router.online.traffic import Asked, Seen

NOBODY: Mapping[tuple[str, str], float] = MappingProxyType({})


def traffic_of(
    rows: Iterable[OutcomeRow],
    reference: str,
    *,
    judged_so: bool = True,
    heard: Mapping[tuple[str, str], float] = NOBODY,
) -> list[Asked]:
    """Return the requests of these rows (a request's together), oldest first.

    Left out are those measured against another reference, and unless `judged_so` is False those
    whose drafts nobody asked for their own signs: they were judged in another way.
    `heard` is what clients said, by request and model: it is the score of an answer that nobody
    else could judge, where thresholds may be chosen by it; certificates never stand on it.
    """
    return [
        _with_heard(asked, heard) if heard else asked
        for _, own in groupby(rows, key=lambda row: (row.at_us, row.request_id))
        if (asked := _asked(list(own), reference, judged_so)) is not None
    ]


def _with_heard(asked: Asked, heard: Mapping[tuple[str, str], float]) -> Asked:
    if not asked.is_for_tuning:
        return asked
    drafts = tuple(
        replace(seen, score=heard[asked.id, seen.model], is_heard=True)
        if seen.served and seen.score is None and (asked.id, seen.model) in heard
        else seen
        for seen in asked.drafts
    )
    return replace(asked, drafts=drafts)


def _asked(rows: list[OutcomeRow], reference: str, judged_so: bool) -> Asked | None:
    first = rows[0]
    if first.reference != reference:
        return None
    truth = next((row for row in rows if row.model == reference), None)
    ordered = [row for row in sorted(rows, key=lambda row: row.seq) if row.model != reference]
    drafts = tuple(_seen(row) for row in ordered if not is_beside(row))
    if judged_so and any(seen.raw is None and seen.quality is not None for seen in drafts):
        return None
    return Asked(
        first.request_id,
        first.at_us,
        first.drawn,
        drafts,
        reference_usd=None if truth is None else truth.cost_nano_usd / 1e9,
        reference_version="" if truth is None else truth.answered_by,
        prompt_tokens=first.prompt_tokens,
        propensity=first.propensity,
        beside=tuple(_seen(row) for row in ordered if is_beside(row)),
    )


def is_beside(row: OutcomeRow) -> bool:
    """Return whether a tier was asked only once its request had been answered."""
    return '"beside"' in row.stats


def _seen(row: OutcomeRow) -> Seen:
    told: dict[str, Any] = msgspec.json.decode(row.stats)
    return Seen(
        row.model,
        told.get("raw"),
        row.score,
        row.cost_nano_usd / 1e9,
        row.served,
        row.quality,
        told.get("expected"),
        row.answered_by,
        row.completion_tokens,
        labeller=row.labeller,
        checked=told.get("judge"),
    )
