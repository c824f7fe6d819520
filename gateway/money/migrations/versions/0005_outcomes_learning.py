"""Outcomes to learn from, what was learnt in which step, and what audits have cost by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=nullable, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.REAL().with_variant(sa.Double(), "postgresql"), nullable=True)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "outcome",
        *(_text("request_id"), _text("model"), _int("at_us"), _int("seq"), _text("route")),
        *(_text("tenant"), _text("revision"), _text("bundle"), _text("reference")),
        *(_text("answered_by"), _int("served"), _int("drawn")),
        *(_real(name) for name in ("quality", "propensity", "score")),
        *(_text("labeller"), _text("finish_reason", nullable=True)),
        *(_int("prompt_tokens"), _int("completion_tokens")),
        *(_int("cost_nano_usd"), _int("latency_us"), _text("stats")),
        sa.Column("vector", sa.LargeBinary(), nullable=True),
        *(_text("messages", nullable=True), _text("response", nullable=True)),
        sa.PrimaryKeyConstraint("request_id", "model"),
        sqlite_strict=True,
    )
    op.create_index("outcome_route_at", "outcome", ["route", "at_us"])
    op.create_table(
        "learning_step",
        *(_text("route"), _int("step"), _int("at_us"), _text("kind"), _text("detail")),
        sa.PrimaryKeyConstraint("route", "step"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "background_spend",
        *(_text("route"), _int("day"), _int("nano_usd")),
        sa.PrimaryKeyConstraint("route", "day"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("outcome", "learning_step", "background_spend"):
        op.drop_table(table)
