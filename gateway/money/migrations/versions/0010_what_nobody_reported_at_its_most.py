"""Beside each cost, what calls that nobody reported may have cost beyond it, kill or no kill."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Of the lines that are there; those that were let go before are not known any more.
_ADDED = {
    "sqlite": "entry.rowid <= coalesce((SELECT e.rowid FROM entry AS e JOIN spool AS s "
    "ON s.upto_id = e.request_id WHERE s.id = 'own'), "
    "(SELECT upto FROM spool WHERE id = 'own'), 0)",
    "postgresql": "TRUE",
}
_HOUR = "started_at_us / 3600000000"
_KEYS = ("tenant", "key", "route", "model", "tags")
_SUMS = (
    "requests", "tokens", "cost_nano_usd", "saved_nano_usd", "cache_saved_nano_usd", "escalations",
    "estimated",
)  # fmt: skip
_OF_HOURS = (*_SUMS, "cache_hits")
_BY_ONE = (*_SUMS, "errors", "abandoned", "hits_exact", "hits_semantic", "compute_us")


def _add(sign: str) -> None:
    """Correct the sums of whole hours, and those by one thing, by hour and by day."""
    keys = ", ".join(_KEYS)
    _correct("rollup", f"hour, {keys}", f"{_HOUR}, {keys}", _OF_HOURS, sign)
    for by in ("all", "route", "tenant", "key", "tags", "model"):
        for step in (1, 24):
            name = "''" if by == "all" else by
            hour = f"{_HOUR} / {step} * {step}"
            values = f"'{by}', {step}, {hour}, {name}"
            group = hour if by == "all" else f"{hour}, {name}"
            _correct("rollup_by", '"by", step, hour, name', values, _BY_ONE, sign, group)


def _correct(
    table: str, keys: str, values: str, zeros: tuple[str, ...], sign: str, group: str = ""
) -> None:
    op.execute(
        f"INSERT INTO {table} ({keys}, {', '.join(zeros)}, unsure_nano_usd) "
        f"SELECT {values}, {', '.join('0' for _ in zeros)}, "
        f"{sign}sum(upper_nano_usd - cost_nano_usd) FROM entry WHERE {_meant()} "
        f"GROUP BY {group or values} ON CONFLICT ({keys}) DO UPDATE "
        f"SET unsure_nano_usd = {table}.unsure_nano_usd + excluded.unsure_nano_usd"
    )


def _meant() -> str:
    added = _ADDED[op.get_bind().dialect.name]
    told = "estimated = 1 AND state <> 'abandoned' AND coalesce(error, '') <> 'interrupted'"
    return f"{told} AND {added}"


def upgrade() -> None:
    """Count them in."""
    _add("")


def downgrade() -> None:
    """Count them out."""
    _add("-")
