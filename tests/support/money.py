"""Ledger records for tests, with only what matters spelled out."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from gateway.money.bounds import Rates
from gateway.money.intents import Intent
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.money.usage import Usage

_ENTRY = EntryRecord(
    request_id="r",
    started_at_us=1_795_000_000_000_000,
    state="settled",
    tenant="platform",
    key="ci",
    route="auto",
    model="mini",
    requested_model="auto",
    cache="miss",
    path="tiny:0.41:escalated,mini:0.93:accepted",
    stream=False,
    status=200,
    usage=Usage(input=100, output=50),
    cost_nano_usd=1_000,
    saved_nano_usd=9_000,
    reference_model="large",
    lower_nano_usd=1_000,
    upper_nano_usd=1_000,
    latency_us=250_000,
)
_ATTEMPT = AttemptRecord(
    request_id="r",
    seq=0,
    model="mini",
    purpose="serve",
    payer="platform",
    outcome="accepted",
    usage=Usage(input=100, output=50),
    cost_nano_usd=1_000,
    lower_nano_usd=1_000,
    upper_nano_usd=1_000,
    latency_us=240_000,
)


def entry(request_id: str = "r", **changes: Any) -> EntryRecord:
    """Return a settled request."""
    return replace(_ENTRY, request_id=request_id, **changes)


def attempt(request_id: str = "r", seq: int = 0, **changes: Any) -> AttemptRecord:
    """Return an accepted attempt."""
    return replace(_ATTEMPT, request_id=request_id, seq=seq, **changes)


_INTENT = Intent(
    request_id="r",
    seq=0,
    at_us=1_795_000_000_100_000,
    started_at_us=1_795_000_000_000_000,
    tenant="platform",
    key="ci",
    route="auto",
    requested_model="auto",
    stream=False,
    reference_model="large",
    model="mini",
    provider="openai",
    purpose="serve",
    input_guess=100,
    input_most=1_000,
    output_most=200,
    busy_s=60.0,
    rates=Rates(1_000_000, 1_000_000, 2_000_000, 2_000_000, 0.0, 0),
    price_source="policy",
    price_dated=None,
)


def intent(request_id: str = "r", seq: int = 0, **changes: Any) -> Intent:
    """Return a call about to be made, at a thousand nano-dollars a token read, two written."""
    return replace(_INTENT, request_id=request_id, seq=seq, **changes)
