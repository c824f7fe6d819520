"""The ledger's tables, for reading them and as what the migrations must arrive at."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()

_INT: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")
_REAL: TypeEngine[float] = REAL().with_variant(Double(), "postgresql")


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

ENTRY_SUMS = (
    "requests",
    "tokens",
    "cost_nano_usd",
    "saved_nano_usd",
    "cache_saved_nano_usd",
    "cache_hits",
    "escalations",
    "estimated",
)
CALL_SUMS = (
    "calls",
    *BUCKETS,
    "cache_write_1h",
    "compute_us",
    "cost_nano_usd",
    "lower_nano_usd",
    "upper_nano_usd",
    "estimated",
    "escalations",
)
VIEW_SUMS = (
    "requests",
    "errors",
    "abandoned",
    "tokens",
    "cost_nano_usd",
    "saved_nano_usd",
    "cache_saved_nano_usd",
    "hits_exact",
    "hits_semantic",
    "escalations",
    "estimated",
    "unsure_nano_usd",
    "compute_us",
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
    Column("confidence", _REAL, nullable=True),
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
    # Of `cache_write`, what is kept for an hour; and the service tier, empty for the standard one.
    Column("cache_write_1h", _INT, nullable=False, server_default="0"),
    Column("tier", Text, nullable=False, server_default=""),
    # How long after its request's arrival; NULL of calls that were written down before it was.
    _maybe_int("began_us"),
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

# Sums of whole hours, kept for good. Who asked, and what it came to.
rollup = Table(
    "rollup",
    metadata,
    _int("hour", key=True),
    *(_text(name, key=True) for name in ("tenant", "key", "route", "model", "tags")),
    *(_int(name) for name in ENTRY_SUMS),
    # What requests that nobody reported may have cost beyond `cost_nano_usd`.
    Column("unsure_nano_usd", _INT, nullable=False, server_default="0"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# The same of calls: who was called, for whom, and what it took.
rollup_call = Table(
    "rollup_call",
    metadata,
    _int("hour", key=True),
    *(_text(name, key=True) for name in ("tenant", "key", "route", "tags")),
    *(_text(name, key=True) for name in ("model", "provider", "purpose", "tier")),
    _int("is_own", key=True),
    *(_int(name) for name in CALL_SUMS),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# What a request cost in each arm of a route's experiment; squares are of dollars.
rollup_arm = Table(
    "rollup_arm",
    metadata,
    _int("hour", key=True),
    _text("route", key=True),
    _text("arm", key=True),
    _int("requests"),
    _int("cost_nano_usd"),
    Column("cost_squared", _REAL, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Sums of hours (`step` 1) and of days (24, by their first hour) by one thing at a time: `by` what,
# and its name. For calls, `requests` are calls.
rollup_by = Table(
    "rollup_by",
    metadata,
    _text("by", key=True),
    _int("step", key=True),
    _int("hour", key=True),
    _text("name", key=True),
    *(_int(name) for name in VIEW_SUMS),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# How many settled requests took how long: latencies (`kind` latency, ttft) by class.
rollup_latency = Table(
    "rollup_latency",
    metadata,
    _text("kind", key=True),
    _int("step", key=True),
    _int("hour", key=True),
    _int("class", key=True),
    _int("count"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# How far the entries of a spool were added to the sums: up to that row, of that id. A ledger in
# SQLite is its own spool; PostgreSQL knows all that wrote to it.
spool = Table(
    "spool",
    metadata,
    _text("id", key=True),
    _int("upto"),
    _text("upto_id"),
    _int("kept_since_us"),
    _int("seen_at_us"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

budget = Table(
    "budget",
    metadata,
    _text("id", key=True),
    _text("account"),
    _maybe_int("ends_at_us"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# What one process holds and has spent of a budget; it says both as a whole each time.
budget_part = Table(
    "budget_part",
    metadata,
    _text("budget_id", key=True),
    _text("process", key=True),
    _int("held_nano_usd"),
    _int("spent_nano_usd"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

budget_process = Table(
    "budget_process",
    metadata,
    _text("name", key=True),
    _int("alive_until_us"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# Keys that several machines share through PostgreSQL; a SQLite ledger leaves these tables empty.
key_holder = Table(
    "key_holder",
    metadata,
    _text("name", key=True),
    *(_text(name) for name in ("tenant", "scopes", "tags")),
    _maybe_text("limits"),
    Column("created_at", _REAL, nullable=False),
    Column("revoked_at", _REAL, nullable=True),
    sqlite_strict=True,
)

key_hash = Table(
    "key_hash",
    metadata,
    Column("digest", LargeBinary, primary_key=True, nullable=False),
    *(_text(name) for name in ("name", "hint")),
    Column("created_at", _REAL, nullable=False),
    Column("expires_at", _REAL, nullable=True),
    sqlite_strict=True,
)

key_sharing = Table(
    "key_sharing",
    metadata,
    _int("id", key=True),
    _int("version"),
    Column("secret_check", LargeBinary, nullable=True),
    sqlite_strict=True,
)

# One row a judged draft, and one the reference's answer it was compared with. `drawn` are those
# of requests that were drawn before anything was known of them; `score` is 1 for no worse than
# the reference, as `labeller` says, NULL where nobody could tell.
outcome = Table(
    "outcome",
    metadata,
    _text("request_id", key=True),
    _text("model", key=True),
    _int("at_us"),
    _int("seq"),
    *(_text(name) for name in ("route", "tenant", "revision", "bundle", "reference")),
    _text("answered_by"),
    _int("served"),
    _int("drawn"),
    *(Column(name, _REAL, nullable=True) for name in ("quality", "propensity", "score")),
    _text("labeller"),
    _maybe_text("finish_reason"),
    *(_int(name) for name in ("prompt_tokens", "completion_tokens")),
    *(_int(name) for name in ("cost_nano_usd", "latency_us")),
    _text("stats"),
    Column("vector", LargeBinary, nullable=True),
    _maybe_text("messages"),
    _maybe_text("response"),
    # All that a report on quality counts: the rows themselves are long, with a vector and texts.
    Index(
        "outcome_counted",
        "route",
        "at_us",
        "model",
        "reference",
        "request_id",
        "drawn",
        "served",
        "quality",
        "score",
        "labeller",
    ),
    sqlite_strict=True,
)

# What clients have said of answers; of each key the latest word on a request.
feedback = Table(
    "feedback",
    metadata,
    _text("request_id", key=True),
    _text("key", key=True),
    _int("at_us"),
    *(_text(name) for name in ("tenant", "route", "model", "cache", "reference")),
    *(Column(name, _REAL, nullable=False) for name in ("score", "weight")),
    _maybe_text("label"),
    Index("feedback_route_at", "route", "at_us"),
    Index("feedback_key_at", "key", "at_us"),
    sqlite_strict=True,
)

# What a route's learning has come to, step by step; the last one holds.
learning_step = Table(
    "learning_step",
    metadata,
    _text("route", key=True),
    _int("step", key=True),
    _int("at_us"),
    _text("kind"),
    _text("detail"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# What one machine has trained, for those that share the ledger: in one piece, by its id.
learnt_bundle = Table(
    "learnt_bundle",
    metadata,
    _text("id", key=True),
    _text("route"),
    _int("at_us"),
    Column("content", LargeBinary, nullable=False),
    sqlite_strict=True,
)

background_spend = Table(
    "background_spend",
    metadata,
    _text("route", key=True),
    _int("day", key=True),
    _int("nano_usd"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
