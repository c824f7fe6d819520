"""A month of a company's traffic in a ledger: believable to look at, and the same each time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gateway.learning.book import Book, OutcomeRow
from gateway.money.records import AttemptRecord, EntryRecord, Purpose
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'; DROP TABLE entry; --",
    '=HYPERLINK("http://evil.example")',
    "\u202egnihton od\u202c \u05e9\u05dc\u05d5\u05dd",
    "🦊🔥 n\u0303aña ﷽",
)
"""What a name may be by accident or malice: markup, quotes, a formula, right to left, emoji."""

_HOUR_S = 3600
_TENANTS = ("platform", "support", "research")
_KEYS = {"platform": ("ci", "web"), "support": ("helpdesk",), "research": ("notebooks", "nightly")}
_MODELS = {"tiny": (0.02, 0.04, 90), "mini": (0.25, 1.0, 420), "large": (3.0, 12.0, 1400)}
"""Dollars a million tokens read and written, and a usual latency in milliseconds."""


@dataclass(frozen=True, slots=True)
class _Call:
    model: str
    confidence: float | None
    is_accepted: bool
    purpose: Purpose = "serve"


def month(
    count: int, *, now_s: float, days: int = 30, names: tuple[str, ...] = ()
) -> Iterator[tuple[EntryRecord, list[AttemptRecord]]]:
    """Make the lines of so many requests up to `now_s`, oldest first; some carry odd `names`."""
    draw = Random(7)
    step_s = days * 86_400 / count
    for number in range(count):
        at_s = now_s - (count - number) * step_s
        if draw.random() < _pace(at_s):
            yield _request(draw, number, at_s, names)


def _pace(at_s: float) -> float:
    """Return how busy an hour is: by day more than by night, at weekends less."""
    hour = at_s / _HOUR_S % 24
    weekend = 0.45 if int(at_s // 86_400 + 3) % 7 >= 5 else 1.0
    return weekend * (0.25 + 0.7 * max(0.0, math.sin((hour - 5) / 24 * 2 * math.pi)))


def _request(
    draw: Random, number: int, at_s: float, names: tuple[str, ...]
) -> tuple[EntryRecord, list[AttemptRecord]]:
    request_id = f"req_{int(at_s * 1000):013d}{number:08d}"
    tenant = draw.choices(_TENANTS, (5, 3, 2))[0]
    key = draw.choice(_KEYS[tenant])
    route = "auto" if tenant != "research" else draw.choice(("auto", "deep"))
    tags: tuple[str, ...] = ("batch",) if key == "nightly" else draw.choice(((), ("prod",)))
    if names and number % 9 == 0:
        odd = names[number // 9 % len(names)]
        key, tags = odd, (odd, *tags)
    usage = Usage(input=draw.randint(800, 24_000), output=draw.randint(60, 2_400))
    cache = draw.choices(("miss", "exact", "semantic", "bypass"), (62, 24, 10, 4))[0]
    state = draw.choices(("settled", "abandoned", "failed"), (974, 15, 11))[0]
    path = [] if cache in ("exact", "semantic") else _calls(draw, route, state)
    attempts = [
        _attempt(draw, request_id, seq, call, usage, tenant, state) for seq, call in enumerate(path)
    ]
    cost = sum(each.cost_nano_usd for each in attempts)
    reference = _price("large", usage)
    is_hit = cache in ("exact", "semantic")
    latency_us = draw.randint(400, 2600) if is_hit else sum(a.latency_us for a in attempts) + 1800
    entry = EntryRecord(
        request_id=request_id,
        started_at_us=int(at_s * 1_000_000),
        state="settled" if is_hit else state,  # type: ignore[arg-type]
        tenant=tenant,
        key=key,
        route=route,
        model="mini" if is_hit else (path[-1].model if state == "settled" else ""),
        requested_model=route,
        cache=cache,
        path=_path(path, state),
        stream=number % 3 == 0,
        status=200 if is_hit or state != "failed" else 502,
        usage=Usage() if is_hit else usage,
        cost_nano_usd=cost,
        saved_nano_usd=reference if is_hit else reference - cost if state == "settled" else 0,
        reference_model="large",
        lower_nano_usd=cost if state == "settled" else cost // 2,
        upper_nano_usd=cost if state == "settled" else cost * 2,
        latency_us=latency_us,
        estimated=state != "settled" and not is_hit,
        ttft_us=min(latency_us, draw.randint(60, 400) * 1000),
        error="the upstream answered 503: overloaded" if state == "failed" and not is_hit else None,
        tags=tags,
    )
    return entry, attempts


def _calls(draw: Random, route: str, state: str) -> list[_Call]:
    if route == "deep":
        return [_Call("large", None, state == "settled")]
    if draw.random() < 0.08:
        return [_Call("large", None, state == "settled", "control")]
    found = []
    for model in ("tiny", "mini"):
        confidence = draw.betavariate(7, 2)
        if confidence > 0.72:
            return [*found, _Call(model, confidence, state == "settled")]
        found.append(_Call(model, confidence, False))
    return [*found, _Call("large", None, state == "settled")]


def _attempt(
    draw: Random, request_id: str, seq: int, call: _Call, usage: Usage, tenant: str, state: str
) -> AttemptRecord:
    cost = _price(call.model, usage)
    latency_us = int(_MODELS[call.model][2] * draw.lognormvariate(0, 0.45) * 1000)
    rejected = call.confidence is not None and not call.is_accepted and call.confidence <= 0.72
    outcome = "accepted" if call.is_accepted else "rejected" if rejected else "unavailable"
    return AttemptRecord(
        request_id=request_id,
        seq=seq,
        model=call.model,
        purpose=call.purpose,
        payer=tenant,
        outcome="abandoned" if state == "abandoned" and not rejected else outcome,
        usage=usage,
        cost_nano_usd=cost,
        lower_nano_usd=cost,
        upper_nano_usd=cost,
        latency_us=latency_us,
        ttft_us=latency_us // 4,
        confidence=call.confidence,
        reason="below the threshold of 0.72" if rejected else "",
        provider="openai",
        price_source="policy",
    )


def _price(model: str, usage: Usage) -> int:
    read, written, _ = _MODELS[model]
    return int((usage.input * read + usage.output * written) * 1000)


def _path(calls: list[_Call], state: str) -> str:
    words = []
    for call in calls:
        verdict = "accepted" if call.is_accepted else "escalated" if call.confidence else state
        sure = "" if call.confidence is None else f"{call.confidence:.2f}:"
        words.append(f"{call.model}:{sure}{'control' if call.purpose == 'control' else verdict}")
    return ",".join(words)


def fill(
    path: Path, count: int, *, now_s: float, days: int = 30, names: tuple[str, ...] = ()
) -> None:
    """Write such a month into a ledger, with its sums."""
    store = SqliteStore(path)
    store.open()
    batch_entries: list[EntryRecord] = []
    batch_attempts: list[AttemptRecord] = []
    for entry, attempts in month(count, now_s=now_s, days=days, names=names):
        batch_entries.append(entry)
        batch_attempts += attempts
        if len(batch_entries) == 5_000:
            store.commit(batch_entries, batch_attempts)
            batch_entries, batch_attempts = [], []
    store.commit(batch_entries, batch_attempts)
    store.close()
    rollup = Rollup(path)
    while rollup.step():
        pass


def fill_outcomes(path: Path, *, now_s: float, route: str = "auto", count: int = 1200) -> None:
    """Write what audits of a route found: drafts that promise about what they keep."""
    draw = Random(11)
    rows = []
    for number in range(count):
        sure = draw.betavariate(5, 1.6)
        is_good = draw.random() < 0.12 + 0.86 * sure
        model = "tiny" if number % 3 else "mini"
        served = sure > 0.72
        rows.append(
            OutcomeRow(
                request_id=f"req_audit{number:08d}",
                model=model,
                at_us=int((now_s - (count - number) * 1800) * 1_000_000),
                seq=0,
                route=route,
                tenant="platform",
                revision="1",
                bundle="",
                reference="large",
                answered_by=model if served else "large",
                served=served,
                drawn=number % 2 == 0,
                quality=sure,
                propensity=0.02,
                score=1.0 if is_good or (served and draw.random() < 0.8) else 0.0,
                labeller="judge",
                finish_reason="stop",
                prompt_tokens=300,
                completion_tokens=120,
                cost_nano_usd=40_000,
                latency_us=300_000,
                stats="{}",
            )
        )
    book = Book(f"sqlite:///{path}")
    book.add(rows)
    book.close()
