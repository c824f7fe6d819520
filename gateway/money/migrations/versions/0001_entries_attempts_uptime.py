"""Entries, attempts and the uptime of our own machines.

A migration is history: it repeats the columns rather than importing the schema of today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BUCKETS = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
    "audio",
    "audio_output",
    "image",
)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=nullable, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _usage_and_cost() -> list[sa.Column[int]]:
    names = (*_BUCKETS, "compute_us", "cost_nano_usd", "estimated", "lower_nano_usd")
    return [_int(name) for name in (*names, "upper_nano_usd", "latency_us")]


def upgrade() -> None:
    """Create the first tables."""
    words = ("tenant", "key", "tags", "route", "model", "requested_model", "cache", "path")
    op.create_table(
        "entry",
        _text("request_id"),
        _int("started_at_us"),
        _text("state"),
        *(_text(name) for name in words),
        _int("stream"),
        _int("status"),
        *_usage_and_cost(),
        _int("saved_nano_usd"),
        _text("reference_model"),
        _int("ttft_us", nullable=True),
        _text("error", nullable=True),
        sa.PrimaryKeyConstraint("request_id"),
        sqlite_strict=True,
    )
    op.create_index("entry_started_at", "entry", ["started_at_us"])
    op.create_table(
        "attempt",
        _text("request_id"),
        _int("seq"),
        *(_text(name) for name in ("model", "provider", "purpose", "payer", "outcome")),
        sa.Column("confidence", sa.REAL().with_variant(sa.Double(), "postgresql"), nullable=True),
        _text("reason"),
        *_usage_and_cost(),
        _int("ttft_us", nullable=True),
        _text("price_source"),
        _text("price_dated", nullable=True),
        sa.PrimaryKeyConstraint("request_id", "seq"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uptime",
        _text("run_id"),
        _text("model"),
        _int("started_at_us"),
        _int("seen_at_us"),
        _int("machine_hour_nano_usd"),
        sa.PrimaryKeyConstraint("run_id", "model"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop everything: there was nothing before."""
    for table in ("uptime", "attempt", "entry"):
        op.drop_table(table)
