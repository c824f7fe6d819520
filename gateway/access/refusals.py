"""How limits speak to clients: errors, and the headers that say what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.access.gcra import Level
from gateway.access.meters import Claim, Pace, Purse, Refused, Unit
from gateway.errors import BudgetExceeded, GatewayError, RateLimited
from gateway.money.price import shown_usd

_NO_RETRY = {"x-should-retry": "false"}
"""What OpenAI's clients look for before they try again."""
_UNITS: tuple[Unit, ...] = ("requests", "tokens")
_NAMES = tuple(
    (
        unit,
        f"x-ratelimit-limit-{unit}".encode(),
        f"x-ratelimit-remaining-{unit}".encode(),
        f"x-ratelimit-reset-{unit}".encode(),
    )
    for unit in _UNITS
)


def told(refused: Refused, claim: Claim) -> GatewayError:
    """Return what the client is told."""
    error = _refusal(refused, claim)
    if refused.note:
        error.message += f" ({refused.note})"
    paces = [pace for pace, _ in claim.paces]
    levels = list(zip(paces, refused.levels, strict=False))
    lines = {name.decode(): value.decode() for name, value in rate_lines(levels)}
    error.headers = {**error.headers, **lines}
    return error


def _refusal(refused: Refused, claim: Claim) -> GatewayError:
    meter = refused.meter
    if isinstance(meter, Purse):
        return _out_of_money(meter, refused.wait_s, claim)
    if isinstance(meter, Pace):
        return _too_fast(meter, refused.wait_s or 0.0)
    return RateLimited(
        f"the limit of {meter.whose} is reached: {meter.size} requests at once; "
        "wait for one to end",
        retry_after="1",
    )


def _too_fast(pace: Pace, wait_s: float) -> GatewayError:
    said = f"the limit of {pace.whose} is reached: {pace.per_minute} {pace.unit} per minute"
    if math.isinf(wait_s):
        error = RateLimited(f"{said}, and this request needs more than that; shorten its prompt")
        error.headers = _NO_RETRY
        return error
    return RateLimited(f"{said}; try again in {shown_wait(wait_s)}", retry_after=_seconds(wait_s))


def _out_of_money(purse: Purse, wait_s: float | None, claim: Claim) -> GatewayError:
    amount = next(amount for asked, amount in claim.purses if asked.id == purse.id)
    needs = f"this request may cost up to {shown_usd(amount)}"
    if wait_s is None:
        return BudgetExceeded(
            f"{purse.whose}: {needs}, and requests under way hold the rest; try again shortly, "
            "or send a smaller max_tokens",
            retry_after="1",
        )
    error = BudgetExceeded(
        f"{purse.whose}: {needs}, and less than that is left; send a smaller max_tokens, "
        "wait for the next window, or ask for a larger budget"
    )
    error.headers = _NO_RETRY
    return error


def _seconds(wait_s: float) -> str:
    return str(max(1, math.ceil(wait_s)))


def rate_lines(levels: Sequence[tuple[Pace, Level]]) -> list[tuple[bytes, bytes]]:
    """Return `x-ratelimit-*` of the tightest limit of each unit."""
    tightest: dict[Unit, Level] = {}
    for pace, level in levels:
        found = tightest.get(pace.unit)
        if found is None or level.remaining < found.remaining:
            tightest[pace.unit] = level
    lines: list[tuple[bytes, bytes]] = []
    for unit, limit, remaining, reset in _NAMES:
        if (least := tightest.get(unit)) is not None:
            lines.append((limit, b"%d" % least.limit))
            lines.append((remaining, b"%d" % least.remaining))
            lines.append((reset, shown_wait(least.reset_s).encode()))
    return lines


def shown_wait(seconds: float) -> str:
    """Write a duration as OpenAI does: 88ms, 1s, 6m0s, 1h0m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}h{minutes}m{secs}s" if hours else f"{minutes}m{secs}s"
