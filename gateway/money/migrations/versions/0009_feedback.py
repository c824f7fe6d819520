"""What clients have said of the answers that they were given."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.REAL().with_variant(sa.Double(), "postgresql"), nullable=False)


def upgrade() -> None:
    """Create the table."""
    at = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "feedback",
        *(_text("request_id"), _text("key"), sa.Column("at_us", at, nullable=False)),
        *(_text(name) for name in ("tenant", "route", "model", "cache", "reference")),
        *(_real("score"), _real("weight"), _text("label", nullable=True)),
        sa.PrimaryKeyConstraint("request_id", "key"),
        sqlite_strict=True,
    )
    op.create_index("feedback_route_at", "feedback", ["route", "at_us"])
    op.create_index("feedback_key_at", "feedback", ["key", "at_us"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("feedback")
