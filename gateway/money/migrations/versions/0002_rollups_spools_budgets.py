"""Sums of whole hours, how far each spool was added to them, and budgets that processes share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WHO = ("tenant", "key", "route")
_BUCKETS = (
    "input", "cached_input", "cache_write", "output", "reasoning", "audio", "audio_output", "image",
)  # fmt: skip
_ENTRY_SUMS = (
    "requests", "tokens", "cost_nano_usd", "saved_nano_usd", "cache_saved_nano_usd", "cache_hits",
    "escalations", "estimated",
)  # fmt: skip
_CALL_SUMS = (
    "calls", *_BUCKETS, "compute_us", "cost_nano_usd", "lower_nano_usd", "upper_nano_usd",
    "estimated", "escalations",
)  # fmt: skip


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=nullable, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _table(name: str, keys: list[sa.Column[Any]], *rest: sa.Column[Any]) -> None:
    op.create_table(
        name,
        *keys,
        *rest,
        sa.PrimaryKeyConstraint(*(key.name for key in keys)),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def upgrade() -> None:
    """Create the tables; the sums are filled from the entries by whoever keeps them."""
    who = [_text(name) for name in (*_WHO, "model", "tags")]
    _table("rollup", [_int("hour"), *who], *(_int(name) for name in _ENTRY_SUMS))
    who = [_text(name) for name in (*_WHO, "tags", "model", "provider", "purpose")]
    _table(
        "rollup_call", [_int("hour"), *who, _int("is_own")], *(_int(name) for name in _CALL_SUMS)
    )
    squared: sa.Column[float] = sa.Column(
        "cost_squared", sa.REAL().with_variant(sa.Double(), "postgresql"), nullable=False
    )
    _table(
        "rollup_arm",
        [_int("hour"), _text("route"), _text("arm")],
        *(_int("requests"), _int("cost_nano_usd"), squared),
    )
    _table(
        "spool",
        [_text("id")],
        *(_int("upto"), _text("upto_id"), _int("kept_since_us"), _int("seen_at_us")),
    )
    _table(
        "budget",
        [_text("id")],
        *(_text("account"), _int("ends_at_us", nullable=True)),
    )
    _table(
        "budget_part",
        [_text("budget_id"), _text("process")],
        *(_int("held_nano_usd"), _int("spent_nano_usd")),
    )
    _table("budget_process", [_text("name")], _int("alive_until_us"))


def downgrade() -> None:
    """Drop them."""
    names = ("rollup", "rollup_call", "rollup_arm", "spool")
    for table in (*names, "budget", "budget_part", "budget_process"):
        op.drop_table(table)
