"""Beside the cost of each hour, what requests that a kill cut off may have cost beyond it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Lines that were let go before are not known any more; those that are there are counted now.
_FILL = """
UPDATE rollup SET unsure_nano_usd = coalesce((
    SELECT sum(entry.upper_nano_usd - entry.cost_nano_usd) FROM entry
    WHERE entry.error = 'interrupted' AND entry.started_at_us / 3600000000 = rollup.hour
        AND entry.tenant = rollup.tenant AND entry.key = rollup.key AND entry.route = rollup.route
        AND entry.model = rollup.model AND entry.tags = rollup.tags
), 0)
WHERE model = ''
"""


def upgrade() -> None:
    """Add the column, and fill it from the lines that are there."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    column = sa.Column("unsure_nano_usd", kind, nullable=False, server_default="0")
    op.add_column("rollup", column)
    op.execute(_FILL)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("rollup", "unsure_nano_usd")
