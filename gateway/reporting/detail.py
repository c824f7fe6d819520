"""One request opened: its way through caches and tiers, what it took, and why it went so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from gateway.money.databases import reading
from gateway.money.price import shown_usd
from gateway.money.records import GATEWAY
from gateway.money.schema import BUCKETS, attempt, entry, outcome
from gateway.reporting.redaction import redacted, redacted_all
from gateway.reporting.requests import shown_request
from gateway.reporting.shapes import (
    AttemptRow,
    RequestDetail,
    RequestRow,
    StoredText,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CACHES = {
    "exact": "The exact cache had this very answer, so no model was called.",
    "semantic": "The semantic cache had the answer to the same question in other words.",
    "miss": "The caches had no answer to this.",
    "bypass": "The caches were not asked: the route, the key or the request said so.",
}
_WHY = {
    "judge": "asked whether two answers say the same, at the gateway's cost",
    "audit": "asked again behind the client's back, to learn, at the gateway's cost",
    "control": "asked straight away, as one of the control arm that savings are measured by",
    "hedge": "asked as well, since the first had not begun in time",
    "verify": "asked to check another one's answer",
}


def request_detail(url: str, request_id: str, *, stores_texts: bool) -> RequestDetail | None:
    """Return a request, None where the ledger has none of that id. Raises LedgerError."""
    with reading(url) as connection:
        row = connection.execute(select(entry).where(entry.c.request_id == request_id)).first()
        if row is None:
            return None
        told = row._asdict()
        wanted = select(attempt).where(attempt.c.request_id == request_id).order_by(attempt.c.seq)
        calls = tuple(_placed([call._asdict() for call in connection.execute(wanted)]))
        texts = tuple(_texts(connection, request_id))
    request = shown_request(told)
    return RequestDetail(
        request=request,
        cache={"state": request.cache, "is_hit": request.cache in ("exact", "semantic")},
        skipped=tuple(_skipped(request.path)),
        attempts=calls,
        headers=_headers(request),
        explanation=tuple(_explained(request, calls, told["reference_model"])),
        texts=texts,
        texts_stored=stores_texts,
    )


def _placed(calls: Sequence[Mapping[str, Any]]) -> Iterator[AttemptRow]:
    """Yield the calls where they began, one after the other where that was not kept."""
    end_us = 0
    for call in calls:
        began_us = end_us if call["began_us"] is None else call["began_us"]
        end_us = max(end_us, began_us + call["latency_us"])
        yield _attempt(call, began_us)


def _attempt(call: Mapping[str, Any], began_us: int) -> AttemptRow:
    known = ("accepted", "rejected", "rejected_early")
    judged = call["outcome"] in known and call["confidence"] is not None
    return AttemptRow(
        **{name: call[name] for name in _AS_KEPT},
        accepted=call["outcome"] == "accepted" if judged else None,
        reason=redacted(call["reason"]),
        started_ms=began_us / 1000,
        is_placed=call["began_us"] is not None,
        took_ms=call["latency_us"] / 1000,
        ttft_ms=None if call["ttft_us"] is None else call["ttft_us"] / 1000,
        usage={bucket: call[bucket] for bucket in BUCKETS},
        tokens=sum(call[bucket] for bucket in BUCKETS),
        cost_usd=shown_usd(call["cost_nano_usd"]),
        estimated=bool(call["estimated"]),
    )


_AS_KEPT = ("seq", "model", "provider", "purpose", "payer", "outcome", "confidence",
            "cost_nano_usd", "lower_nano_usd", "upper_nano_usd", "price_source",
            "price_dated")  # fmt: skip


def _texts(connection: Connection, request_id: str) -> Iterator[StoredText]:
    columns = ("model", "messages", "response", "score", "labeller")
    wanted = select(*(outcome.c[name] for name in columns)).where(
        outcome.c.request_id == request_id
    )
    for row in connection.execute(wanted.order_by(outcome.c.seq)):
        if row.messages is None and row.response is None:
            continue
        yield StoredText(
            model=row.model,
            messages=None if row.messages is None else redacted_all(json.loads(row.messages)),
            response=None if row.response is None else redacted(row.response),
            score=row.score,
            labeller=row.labeller,
        )


def _skipped(path: str) -> Iterator[dict[str, str]]:
    for step in path.split(","):
        model, _, rest = step.partition(":")
        reason, _, word = rest.rpartition(":")
        if word == "skipped":
            yield {"model": model, "reason": reason}


def _headers(request: RequestRow) -> dict[str, str]:
    """Return what the answer carried of our own headers, as far as the ledger tells."""
    return {
        "x-request-id": request.request_id,
        "x-cache": request.cache,
        "x-frugal-model": request.model,
        "x-frugal-path": request.path,
        "x-frugal-cost-usd": request.cost_usd,
        "x-frugal-saved-usd": request.saved_usd,
    }


def _explained(request: RequestRow, calls: Sequence[AttemptRow], reference: str) -> Iterator[str]:
    yield _CACHES.get(request.cache, f"Cache: {request.cache}.")
    for skip in _skipped(request.path):
        yield f"{skip['model']} was skipped: {skip['reason']}."
    for call in calls:
        yield _told(call)
    if request.saved_nano_usd:
        more = "more" if request.saved_nano_usd < 0 else "less"
        amount = shown_usd(abs(request.saved_nano_usd))
        yield f"It cost {amount} dollars {more} than {reference} would have at its list price."
    if request.state == "abandoned":
        yield "The client left before the answer was complete."
    if request.error:
        yield f"It failed: {request.error}."
    if request.estimated:
        yield "The provider did not report all usage; the rest is our own count, with bounds."


def _told(call: AttemptRow) -> str:
    why = _WHY.get(call.purpose)
    what = f"{call.model} was {why}" if why else f"{call.model} was asked"
    if call.payer == GATEWAY and why is None:
        what += " at the gateway's cost"
    sure = "" if call.confidence is None else f" at a confidence of {call.confidence:.2f}"
    reason = f" ({call.reason})" if call.reason else ""
    outcome_words = {
        "accepted": f"its answer was taken{sure}",
        "rejected": f"its answer was not good enough{sure}",
        "rejected_early": f"it was stopped on its first tokens{sure}",
        "abandoned": "its answer was not used to its end",
    }
    return f"{what}: {outcome_words.get(call.outcome, f'it failed, {call.outcome}')}{reason}."
