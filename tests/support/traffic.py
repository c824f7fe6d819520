"""Traffic whose truth is known: a draft is no worse exactly as often as it says it is sure."""

from __future__ import annotations

import msgspec
import numpy as np

from gateway.learning.book import OutcomeRow
from router.online.traffic import Asked, Seen

REFERENCE_USD = 0.01
DRAFT_USD = 0.001


def traffic(
    count: int,
    *,
    seed: int = 0,
    start: int = 0,
    drawn: bool = True,
    fall: float = 0.0,
    model: str = "small",
    version: str = "",
    reference_version: str = "",
    known: float = 1.0,
    served: bool = False,
) -> list[Asked]:
    """Return requests with a draft each, a microsecond apart.

    A draft's own confidence is spread evenly; it is right that often, less `fall`. A share of
    `known` was scored.
    """
    draw = np.random.default_rng(seed)
    raw = draw.random(count)
    right = draw.random(count) < np.maximum(raw - fall, 0.0)
    told = draw.random(count) < known
    return [
        Asked(
            f"r{seed}-{start + place}",
            start + place,
            drawn,
            (
                Seen(
                    model,
                    float(raw[place]),
                    float(right[place]) if told[place] else None,
                    DRAFT_USD,
                    served=served,
                    quality=float(raw[place]),
                    version=version,
                ),
            ),
            REFERENCE_USD,
            reference_version,
            100,
            0.1 if drawn else None,
        )
        for place in range(count)
    ]


def loss_at(threshold: float, fall: float = 0.0) -> float:
    """Return the true share of requests that such a threshold on raw confidence loses."""
    grid = np.linspace(threshold, 1.0, 10_001)
    return float(np.mean(1.0 - np.maximum(grid - fall, 0.0)) * (1.0 - threshold))


def rows_of(requests: list[Asked], route: str = "auto", reference: str = "large"):
    """Return the outcomes as the gateway writes them down."""
    for each in requests:
        for seq, seen in enumerate(each.drafts):
            yield _row(each, route, reference, seen, seq)
        truth = Seen(
            reference, None, 1.0, each.reference_usd or 0.0, version=each.reference_version
        )
        yield _row(each, route, reference, truth, len(each.drafts))


def _row(each: Asked, route: str, reference: str, seen: Seen, seq: int) -> OutcomeRow:
    believed = {name: getattr(seen, name) for name in ("raw", "expected")}
    told = {name: value for name, value in believed.items() if value is not None}
    return OutcomeRow(
        request_id=each.id,
        model=seen.model,
        at_us=each.at_us,
        seq=seq,
        route=route,
        tenant="t",
        revision="1",
        bundle="",
        reference=reference,
        answered_by=seen.version,
        served=seen.served,
        drawn=each.drawn,
        quality=seen.quality,
        propensity=each.propensity,
        score=seen.score,
        labeller="exact" if seen.score is not None else "",
        finish_reason="stop",
        prompt_tokens=each.prompt_tokens,
        completion_tokens=seen.tokens,
        cost_nano_usd=round(seen.usd * 1e9),
        latency_us=1,
        stats=msgspec.json.encode(told).decode(),
    )


def sums_rows(count: int, *, seed: int = 0, start: int = 0, slips: float = 0.7):
    """Yield audited sums with their texts: the small model errs on large numbers, and hides it.

    Nothing in a reply says whether it is right, so only who learns which questions are hard can
    let a draft through. Large numbers go wrong by a chance of `slips`.
    """
    draw = np.random.default_rng(seed)
    for place in range(count):
        is_hard = bool(draw.random() < 0.5)
        one, other = (int(x) for x in draw.integers(100, 900, 2) if is_hard) if is_hard else (
            int(x) for x in draw.integers(1, 20, 2)
        )  # fmt: skip
        is_wrong = bool(draw.random() < (slips if is_hard else 0.01))
        asked = f"What is {one} + {other}?"
        each = Asked(f"s{seed}-{place}", start + place, True, (), None, "", 12, 0.1)
        said = one + other + is_wrong
        small = Seen("small", 0.5, float(not is_wrong), 3e-6, quality=0.5, tokens=8)
        large = Seen("large", None, 1.0, 140e-6, tokens=8)
        for seq, (seen, answer) in enumerate(((small, said), (large, one + other))):
            row = _row(each, "auto", "large", seen, seq)
            messages = msgspec.json.encode([{"role": "user", "content": asked}]).decode()
            yield msgspec.structs.replace(row, messages=messages, response=f"#### {answer}")
