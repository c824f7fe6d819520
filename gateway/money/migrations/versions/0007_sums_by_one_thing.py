"""Sums by one thing at a time, by hour and by day; latencies in classes; when a call began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_SUMS = (
    "requests", "errors", "abandoned", "tokens", "cost_nano_usd", "saved_nano_usd",
    "cache_saved_nano_usd", "hits_exact", "hits_semantic", "escalations", "estimated",
    "unsure_nano_usd", "compute_us",
)  # fmt: skip
_OF_ENTRIES = (
    "sum(requests), 0, 0, sum(tokens), sum(cost_nano_usd), sum(saved_nano_usd), "
    "sum(cache_saved_nano_usd), sum(cache_hits), 0, sum(escalations), sum(estimated), "
    "sum(unsure_nano_usd), 0"
)
_TOKENS = "input + cached_input + cache_write + output + reasoning + audio + audio_output + image"
_OF_CALLS = (
    f"sum(calls), 0, 0, sum({_TOKENS}), sum(cost_nano_usd), 0, 0, 0, 0, sum(escalations), "
    "sum(estimated), 0, sum(compute_us)"
)
# What the sums of hours did not tell, of the lines that are there and were added up already.
_ADDED = {
    "sqlite": "entry.rowid <= coalesce((SELECT e.rowid FROM entry AS e JOIN spool AS s "
    "ON s.upto_id = e.request_id WHERE s.id = 'own'), "
    "(SELECT upto FROM spool WHERE id = 'own'), 0)",
    "postgresql": "TRUE",
}
_HOUR = "started_at_us / 3600000000"


def _int(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=False, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _fill() -> None:
    columns = f'INSERT INTO rollup_by ("by", step, hour, name, {", ".join(_SUMS)}) '
    names = {"all": "''"} | {each: each for each in ("route", "tenant", "key", "tags", "model")}
    for by, name in names.items():
        group = f"hour, {name}" if by != "all" else "hour"
        op.execute(
            f"{columns} SELECT '{by}', 1, hour, {name}, {_OF_ENTRIES} FROM rollup GROUP BY {group}"
        )
        _correct(columns, by, name)
    for by, name, where in (
        ("call", "model", "is_own = 0"),
        ("own", "purpose", "is_own = 1"),
        ("busy", "model", "compute_us > 0"),
    ):
        op.execute(
            f"{columns} SELECT '{by}', 1, hour, {name}, {_OF_CALLS} FROM rollup_call "
            f"WHERE {where} GROUP BY hour, {name}"
        )
    sums = ", ".join(f"sum({name})" for name in _SUMS)
    op.execute(
        f'{columns} SELECT "by", 24, hour / 24 * 24, name, {sums} FROM rollup_by '
        'WHERE step = 1 GROUP BY "by", hour / 24 * 24, name'
    )


def _correct(columns: str, by: str, name: str) -> None:
    """Tell semantic from exact hits, and errors, where the lines are."""
    semantic = "sum(CASE WHEN cache = 'semantic' THEN 1 ELSE 0 END)"
    errors = "sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END)"
    gone = "sum(CASE WHEN state = 'abandoned' THEN 1 ELSE 0 END)"
    sums = f"0, {errors}, {gone}, 0, 0, 0, 0, -{semantic}, {semantic}, 0, 0, 0, 0"
    group = f"{_HOUR}, {name}" if by != "all" else _HOUR
    told = ("errors", "abandoned", "hits_exact", "hits_semantic")
    added = ", ".join(f"{each} = rollup_by.{each} + excluded.{each}" for each in told)
    op.execute(
        f"{columns} SELECT '{by}', 1, {_HOUR}, {name}, {sums} FROM entry "
        f"WHERE {_ADDED[op.get_bind().dialect.name]} GROUP BY {group} "
        f'ON CONFLICT ("by", step, hour, name) DO UPDATE SET {added}'
    )


def _class(micros: str) -> str:
    octaves = " ".join(
        f"WHEN {micros} < {2 ** (k + 1)} THEN {(k - 4) * 16} + {micros} / {2 ** (k - 4)}"
        for k in range(4, 40)
    )
    return (
        f"CASE WHEN {micros} < 0 THEN 0 WHEN {micros} < 16 THEN {micros} {octaves} "
        f"ELSE {36 * 16} + {micros} / {2**36} END"
    )


def _fill_latencies() -> None:
    added = _ADDED[op.get_bind().dialect.name]
    for kind, micros in (("latency", "latency_us"), ("ttft", "ttft_us")):
        op.execute(
            f"INSERT INTO rollup_latency (kind, step, hour, class, count) "
            f"SELECT '{kind}', 1, {_HOUR}, {_class(micros)}, count(*) FROM entry "
            f"WHERE state = 'settled' AND {micros} IS NOT NULL AND {added} "
            f"GROUP BY {_HOUR}, {_class(micros)}"
        )
    op.execute(
        "INSERT INTO rollup_latency (kind, step, hour, class, count) "
        "SELECT kind, 24, hour / 24 * 24, class, sum(count) FROM rollup_latency "
        "WHERE step = 1 GROUP BY kind, hour / 24 * 24, class"
    )


def upgrade() -> None:
    """Create the tables, and fill them from the sums and the lines that are there."""
    op.create_table(
        "rollup_by",
        *(_text("by"), _int("step"), _int("hour"), _text("name")),
        *(_int(name) for name in _SUMS),
        sa.PrimaryKeyConstraint("by", "step", "hour", "name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollup_latency",
        *(_text("kind"), _int("step"), _int("hour"), _int("class"), _int("count")),
        sa.PrimaryKeyConstraint("kind", "step", "hour", "class"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("attempt", sa.Column("began_us", kind, nullable=True))
    _fill()
    _fill_latencies()


def downgrade() -> None:
    """Drop them."""
    op.drop_column("attempt", "began_us")
    op.drop_table("rollup_latency")
    op.drop_table("rollup_by")
