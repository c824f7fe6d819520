"""Sums of calls by service tier, and of what they wrote to a cache for an hour."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TEXTS = ("tenant", "key", "route", "tags", "model", "provider", "purpose")
_SUMS = (
    "calls", "input", "cached_input", "cache_write", "output", "reasoning", "audio",
    "audio_output", "image", "compute_us", "cost_nano_usd", "lower_nano_usd", "upper_nano_usd",
    "estimated", "escalations",
)  # fmt: skip
_AFTER_BUCKETS = 9
_KEPT = ("hour", *_TEXTS, "is_own", *_SUMS)


def _int(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=False, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _create(name: str, texts: tuple[str, ...], sums: tuple[str, ...]) -> None:
    keys: list[sa.Column[Any]] = [_int("hour"), *(_text(each) for each in texts), _int("is_own")]
    op.create_table(
        name,
        *keys,
        *(_int(each) for each in sums),
        sa.PrimaryKeyConstraint(*(key.name for key in keys)),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def upgrade() -> None:
    """Make the table anew, since its key changes; of hours summed up before neither is known."""
    sums = (*_SUMS[:_AFTER_BUCKETS], "cache_write_1h", *_SUMS[_AFTER_BUCKETS:])
    _create("rollup_call_new", (*_TEXTS, "tier"), sums)
    kept = ", ".join(_quoted(_KEPT))
    op.execute(
        f"INSERT INTO rollup_call_new ({kept}, tier, cache_write_1h) "
        f"SELECT {kept}, '', 0 FROM rollup_call"
    )
    op.drop_table("rollup_call")
    op.rename_table("rollup_call_new", "rollup_call")


def downgrade() -> None:
    """Add the tiers up again."""
    _create("rollup_call_old", _TEXTS, _SUMS)
    keys = ", ".join(_quoted(("hour", *_TEXTS, "is_own")))
    sums = ", ".join(f"SUM({name})" for name in _quoted(_SUMS))
    kept = ", ".join(_quoted(_KEPT))
    op.execute(
        f"INSERT INTO rollup_call_old ({kept}) "
        f"SELECT {keys}, {sums} FROM rollup_call GROUP BY {keys}"
    )
    op.drop_table("rollup_call")
    op.rename_table("rollup_call_old", "rollup_call")


def _quoted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f'"{name}"' for name in names)
