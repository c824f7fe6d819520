"""What the gateway does for its own sake, such as audits, in the ledger's words."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.money.records import GATEWAY, AttemptRecord, EntryRecord, Purpose
from gateway.money.usage import Usage


def on_own_account(
    record: EntryRecord, lines: Sequence[AttemptRecord], purpose: Purpose
) -> tuple[EntryRecord, list[AttemptRecord]]:
    """Return an entry that costs no tenant anything, its attempts paid by the gateway."""
    own = replace(
        record,
        tenant=GATEWAY,
        key=purpose,
        usage=Usage(),
        cost_nano_usd=0,
        saved_nano_usd=0,
        lower_nano_usd=0,
        upper_nano_usd=0,
        estimated=False,
    )
    return own, [replace(line, purpose=purpose, payer=GATEWAY) for line in lines]
