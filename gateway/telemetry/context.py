"""W3C trace context: whose trace a request belongs to, and what its upstreams are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits

from msgspec import Struct

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MAX_STATE = 512
_SAMPLED = 1


class TraceContext(Struct):
    """The place of one request in a trace.

    `parent_id` is the client's span, 0 where the trace begins here; `span_id` the
    request's own, 0 where it is not traced and the client's context only passes
    through. `state` is the client's `tracestate`, handed on as it came.
    """

    trace_id: int
    parent_id: int
    span_id: int
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        """Return whether spans are made of this request."""
        return self.span_id != 0

    def headers(self, span_id: int) -> tuple[tuple[str, str], ...]:
        """Return what an upstream is told, whose work belongs under `span_id`."""
        flags = _SAMPLED if self.is_sampled else 0
        parent = f"00-{self.trace_id:032x}-{span_id or self.parent_id:016x}-{flags:02x}"
        told = (("traceparent", parent),)
        return (*told, ("tracestate", self.state)) if self.state else told


def new_span_id() -> int:
    """Return an id for a span, never 0."""
    return getrandbits(64) or 1


def read_parent(headers: Mapping[bytes, bytes]) -> tuple[TraceContext, bool] | None:
    """Return the client's context and whether it samples; None without one, or with a bad one.

    W3C Trace Context, level 1: a later version is read as far as version 00 goes.
    """
    written = headers.get(b"traceparent")
    found = _PARENT.fullmatch(written) if written is not None else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not (int(trace_id, 16)):
        return None
    if not int(parent_id, 16):
        return None
    state = headers.get(b"tracestate", b"")
    told = state.decode("ascii") if len(state) <= _MAX_STATE and state.isascii() else ""
    context = TraceContext(int(trace_id, 16), int(parent_id, 16), 0, told)
    return context, bool(int(flags, 16) & _SAMPLED)
