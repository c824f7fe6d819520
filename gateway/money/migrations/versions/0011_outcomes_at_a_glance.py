"""What a report on quality counts, beside each other: rows with vectors and texts are long."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COUNTED = ["route", "at_us", "model", "reference", "request_id", "drawn", "served", "quality",
            "score", "labeller"]  # fmt: skip


def upgrade() -> None:
    """Put all that is counted into the index that finds a route's outcomes of a time."""
    op.drop_index("outcome_route_at", "outcome")
    op.create_index("outcome_counted", "outcome", _COUNTED)


def downgrade() -> None:
    """Let the index find them only."""
    op.drop_index("outcome_counted", "outcome")
    op.create_index("outcome_route_at", "outcome", ["route", "at_us"])
