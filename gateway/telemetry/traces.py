"""Traces of some requests, sent to a collector behind the back of all of them.

Whether a request is traced is decided before anything else is done with it. One
that is leaves its account in a bounded queue once it is settled; a thread makes
spans of it and sends them. A collector that is slow or away costs traces, which
are counted, and never a request's time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import getrandbits, random
from typing import Protocol

from gateway.entry import Entry
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.telemetry.context import TraceContext, new_span_id, read_parent
from gateway.telemetry.otlp import export_request
from gateway.telemetry.spans import Account, Span, spans_of
from policies.telemetry import Traces

MOST_WAITING = 2048
"""Requests whose spans are not sent yet."""
EVERY_S = 1.0
AT_ONCE = 256
_LAST_WITHIN_S = 2.0
_TIMEOUT_S = 5.0
_log = logging.getLogger(__name__)


class Exporter(Protocol):
    """Sends spans to a collector: the extension point `trace exporter`; belongs to one thread."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Return whether the collector has taken them."""
        ...

    def close(self) -> None:
        """Give up what is being sent, and every connection."""
        ...


class Tracing:
    """The traces of one policy."""

    def __init__(
        self, rules: Traces, exporter: Exporter, *, draw: Callable[[], float] = random
    ) -> None:
        self.dropped = 0
        self.sent = 0
        self._rules = rules
        self._exporter = exporter
        self._draw = draw
        self._waiting: deque[Account] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._is_well = True
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def begin(self, headers: Mapping[bytes, bytes]) -> TraceContext | None:
        """Return the place of a request in its trace; None for one that is not traced."""
        told = read_parent(headers) if b"traceparent" in headers else None
        if told is None:
            if self._draw() >= self._rules.sample:
                return None
            return TraceContext(getrandbits(128) or 1, 0, new_span_id())
        context, is_sampled = told
        if is_sampled if self._rules.follow else self._draw() < self._rules.sample:
            context.span_id = new_span_id()
        return context

    def note(
        self,
        entry: Entry,
        context: TraceContext,
        record: EntryRecord,
        lines: Sequence[AttemptRecord],
    ) -> None:
        """Take the account of a request that is settled; where too many wait, it is dropped."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(Account(entry, context, record, lines))
        if len(self._waiting) >= AT_ONCE:
            self._wake.set()

    def close(self) -> None:
        """Send what waits, for a moment at most, and stop."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(_LAST_WITHIN_S)
        self._exporter.close()

    # What follows runs in a thread of its own.

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(EVERY_S)
            self._wake.clear()
            while self._waiting:
                self._send_some()
        while self._waiting:
            self._send_some()

    def _send_some(self) -> None:
        accounts = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        try:
            spans = [s for each in accounts for s in spans_of(each, texts=self._rules.texts)]
            is_well = self._exporter.send(spans)
        except Exception:
            _log.exception("spans could not be made")
            is_well = False
        if is_well:
            self.sent += len(accounts)
        else:
            self.dropped += len(accounts)
        if is_well != self._is_well:
            self._is_well = is_well
            said = "takes traces again" if is_well else "takes no traces; they are dropped"
            _log.warning("the collector at %s %s", self._rules.endpoint, said)


class OtlpExporter:
    """Sends spans over OTLP/HTTP: our own bytes, by OpenTelemetry's own client.

    That is the part of its exporter which knows of deadlines, compression and what
    may be tried again; it has no public name.
    """

    def __init__(self, rules: Traces) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say it once, ourselves
        secret = {name: value.get_secret_value() for name, value in rules.headers.items()}
        self._otlp = OTLPSpanExporter(
            endpoint=f"{rules.endpoint}/v1/traces", headers=secret, timeout=_TIMEOUT_S
        )
        self._client = self._otlp._client
        self._service = rules.service

    def send(self, spans: Sequence[Span]) -> bool:
        """Return whether the collector has taken them."""
        return self._client.export(export_request(spans, self._service)).success

    def close(self) -> None:
        """Give up what is being sent, and every connection."""
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def tracing_of(rules: Traces | None) -> AsyncIterator[Tracing | None]:
    """Trace by these rules while the block is entered; None where there are none."""
    if rules is None:
        yield None
        return
    tracing = Tracing(rules, OtlpExporter(rules))
    tracing.start()
    try:
        yield tracing
    finally:
        tracing.close()
