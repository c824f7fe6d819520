"""Of each call: how much of what it wrote to a cache is kept for an hour, and its service tier."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of earlier calls neither was kept."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("attempt", sa.Column("cache_write_1h", kind, nullable=False, server_default="0"))
    op.add_column("attempt", sa.Column("tier", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("attempt", "tier")
    op.drop_column("attempt", "cache_write_1h")
