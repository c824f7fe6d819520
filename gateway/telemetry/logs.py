"""What is written to standard error: a line an event, with its request, without credentials."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.money.price import shown_usd
from gateway.money.records import EntryRecord
from gateway.telemetry.secrets import blotted
from policies.telemetry import Logs

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is worked for, in the task that works for it."""
FIELDS = "fields"
"""The name under which an event carries values of its own."""
_CHATTY = ("alembic", "httpx", "uvicorn")
_requests = logging.getLogger("gateway.requests")


class Lines(logging.Formatter):
    """Writes an event as text, or as one JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._write = _json if as_json else _text

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's line; a failure's traceback follows, or is a member."""
        trace = blotted(self.formatException(record.exc_info)) if record.exc_info else ""
        return self._write(record, blotted(record.getMessage()), trace)


def use_logs(rules: Logs) -> None:
    """Write events to standard error as told, from now on, and nothing elsewhere."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json=rules.format == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(rules.level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def tell_of_request(record: EntryRecord) -> None:
    """Write a line for a request that is settled: figures and names, never what was said."""
    told = {
        "request_id": record.request_id,
        "state": record.state,
        "status": record.status,
        "tenant": record.tenant,
        "key": record.key,
        "route": record.route,
        "model": record.model,
        "cache": record.cache,
        "path": record.path,
        "tokens": record.usage.total,
        "cost_usd": shown_usd(record.cost_nano_usd),
        "saved_usd": shown_usd(record.saved_nano_usd),
        "latency_ms": record.latency_us // 1000,
        "ttft_ms": None if record.ttft_us is None else record.ttft_us // 1000,
        "error": record.error,
    }
    kept = {name: value for name, value in told.items() if value is not None}
    _requests.info("request", extra={FIELDS: kept})


def _text(record: logging.LogRecord, message: str, trace: str) -> str:
    told = " ".join(f"{name}={value}" for name, value in _fields(record).items())
    at = _moment(record).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    # A client's words may hold line breaks, which would pass for events of their own.
    said = message.replace("\r", "\\r").replace("\n", "\\n")
    line = f"{at}Z {record.levelname} {record.name} {said}"
    return "\n".join(filter(None, (f"{line} {told}".rstrip(), trace)))


def _json(record: logging.LogRecord, message: str, trace: str) -> str:
    told = {
        "time": _moment(record).isoformat(timespec="microseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": message,
        **_fields(record),
    }
    if trace:
        told["exception"] = trace
    return msgspec.json.encode(told, enc_hook=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    told: dict[str, Any] = getattr(record, FIELDS, {})
    request_id = REQUEST_ID.get()
    if request_id and "request_id" not in told:
        told = {"request_id": request_id, **told}
    return told


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
