"""What the ledger keeps: one entry a request, one attempt a call to a model.

Moments are microseconds since the epoch (UTC), durations microseconds, money
integer nano-dollars. The cost of an entry is the sum of those of its attempts
that its own tenant pays; an attempt paid by `gateway` (background work) is
beside it.

Records are msgspec structs rather than dataclasses: some are made for every
request, and a frozen dataclass of this size takes five times as long to make.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from gateway.money.usage import Usage

State = Literal["settled", "abandoned", "failed", "open"]
Purpose = Literal["serve", "audit", "control", "judge", "verify", "hedge"]
GATEWAY = "gateway"
"""The payer of work that no tenant asked for."""
INTERRUPTED = "interrupted"
"""The outcome of a call, and the error of a request, whose process died."""


class EntryRecord(Struct, frozen=True, gc=False):
    """One request. `model` is who answered, or who had answered what was cached.

    `request_id` must be unique and our own: a second record of one id is taken
    for a repetition and changes nothing, unless the first was `open`. Ids that
    grow with time keep the database's index small to update.
    """

    request_id: str
    started_at_us: int
    state: State
    tenant: str
    key: str
    route: str
    model: str
    requested_model: str
    cache: str
    path: str
    stream: bool
    status: int
    usage: Usage
    cost_nano_usd: int
    saved_nano_usd: int
    reference_model: str
    lower_nano_usd: int
    upper_nano_usd: int
    latency_us: int
    estimated: bool = False
    ttft_us: int | None = None
    error: str | None = None
    tags: tuple[str, ...] = ()

    def held_nano_usd(self, *, abandoned_at_most: bool) -> int:
        """Return what budgets hold of the request: where nobody reported it, the most it may cost.

        One whose client left counts with what was seen, unless told otherwise.
        """
        is_counted = self.state == "abandoned" and not abandoned_at_most
        return self.upper_nano_usd if self.estimated and not is_counted else self.cost_nano_usd


class AttemptRecord(Struct, frozen=True, gc=False):
    """One call to one model. `usage.compute_s` and `usage.estimated` are kept as columns.

    `outcome` is `accepted`, `rejected`, `rejected_early`, `abandoned` or an
    error's word. `payer` is a tenant (or tenant/key), or `gateway`. `began_us` is how long
    after the request's arrival it began, None where nobody knows.
    """

    request_id: str
    seq: int
    model: str
    purpose: Purpose
    payer: str
    outcome: str
    usage: Usage
    cost_nano_usd: int
    lower_nano_usd: int
    upper_nano_usd: int
    latency_us: int
    ttft_us: int | None = None
    confidence: float | None = None
    reason: str = ""
    provider: str = ""
    price_source: str = ""
    price_dated: str | None = None
    began_us: int | None = None


class UptimeRecord(Struct, frozen=True, gc=False):
    """How long a machine of ours has been up for a model, so that its idle time has a price.

    Written at start and again from time to time under the same `run_id`;
    `seen_at_us` is the last moment it was known to be up.
    """

    run_id: str
    model: str
    started_at_us: int
    seen_at_us: int
    machine_hour_nano_usd: int


_Record = TypeVar("_Record", EntryRecord, AttemptRecord)


def cleaned(record: _Record) -> _Record:
    """Return the record with every text as valid UTF-8: money is not lost to an odd name."""
    told = asdict(record)
    tidy: dict[str, Any] = {k: _tidy(v) for k, v in told.items() if isinstance(v, str)}
    if isinstance(record, EntryRecord):
        tidy["tags"] = tuple(_tidy(tag) for tag in record.tags)
    return replace(record, **tidy)


def _tidy(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
