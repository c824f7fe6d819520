"""The ledger's tables, for reading them and as what the migrations must arrive at."""

from __future__ import annotations

from sqlalchemy import REAL, BigInteger, Column, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_INT: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=False)


def _maybe_text(name: str) -> Column[str]:
    return Column(name, Text, nullable=True)


def _int(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, _INT, primary_key=key, nullable=False, autoincrement=False)


def _maybe_int(name: str) -> Column[int]:
    return Column(name, _INT, nullable=True)


BUCKETS = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
    "audio",
    "audio_output",
    "image",
)

entry = Table(
    "entry",
    metadata,
    _text("request_id", key=True),
    _int("started_at_us"),
    _text("state"),
    _text("tenant"),
    _text("key"),
    _text("tags"),
    _text("route"),
    _text("model"),
    _text("requested_model"),
    _text("cache"),
    _text("path"),
    _int("stream"),
    _int("status"),
    *(_int(bucket) for bucket in BUCKETS),
    _int("compute_us"),
    _int("cost_nano_usd"),
    _int("saved_nano_usd"),
    _text("reference_model"),
    _int("estimated"),
    _int("lower_nano_usd"),
    _int("upper_nano_usd"),
    _int("latency_us"),
    _maybe_int("ttft_us"),
    _maybe_text("error"),
    Index("entry_started_at", "started_at_us"),
    sqlite_strict=True,
)

attempt = Table(
    "attempt",
    metadata,
    _text("request_id", key=True),
    _int("seq", key=True),
    _text("model"),
    _text("provider"),
    _text("purpose"),
    _text("payer"),
    _text("outcome"),
    Column("confidence", REAL, nullable=True),
    _text("reason"),
    *(_int(bucket) for bucket in BUCKETS),
    _int("compute_us"),
    _int("cost_nano_usd"),
    _int("estimated"),
    _int("lower_nano_usd"),
    _int("upper_nano_usd"),
    _int("latency_us"),
    _maybe_int("ttft_us"),
    _text("price_source"),
    _maybe_text("price_dated"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

uptime = Table(
    "uptime",
    metadata,
    _text("run_id", key=True),
    _text("model", key=True),
    _int("started_at_us"),
    _int("seen_at_us"),
    _int("machine_hour_nano_usd"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
