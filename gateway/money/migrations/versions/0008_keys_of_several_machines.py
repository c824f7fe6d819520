"""Keys that machines share: who they stand for, their hashes, and what they were hashed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[float]:
    kind: TypeEngine[float] = sa.REAL().with_variant(sa.Double(), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def upgrade() -> None:
    """Create the tables; in SQLite they stay empty, since its file is one machine's."""
    op.create_table(
        "key_holder",
        *(_text(name) for name in ("name", "tenant", "scopes", "tags")),
        _text("limits", nullable=True),
        _moment("created_at"),
        _moment("revoked_at", nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sqlite_strict=True,
    )
    op.create_table(
        "key_hash",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        _text("name"),
        _text("hint"),
        _moment("created_at"),
        _moment("expires_at", nullable=True),
        sa.PrimaryKeyConstraint("digest"),
        sqlite_strict=True,
    )
    kind: TypeEngine[int] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "key_sharing",
        sa.Column("id", kind, nullable=False, autoincrement=False),
        sa.Column("version", kind, nullable=False, autoincrement=False),
        sa.Column("secret_check", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("key_sharing", "key_hash", "key_holder"):
        op.drop_table(table)
