"""Our own bytes against OpenTelemetry's own encoder."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.telemetry.otlp import export_request
from gateway.telemetry.spans import Span

_LONGEST = 2**63 - 1
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
_values = st.one_of(
    _texts,
    st.booleans(),
    st.integers(-_LONGEST - 1, _LONGEST),
    st.floats(allow_nan=False),
    st.lists(_texts, max_size=4).map(tuple),
)
_spans = st.builds(
    Span,
    name=_texts,
    is_server=st.booleans(),
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    parent_id=st.integers(0, 2**64 - 1),
    start_ns=st.integers(0, _LONGEST),
    end_ns=st.integers(0, _LONGEST),
    attributes=st.dictionaries(_texts.filter(bool), _values, max_size=5),
    error=st.none() | _texts.filter(bool),
)


def _theirs(span: Span, service: str) -> ReadableSpan:
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = None
    if span.parent_id:
        parent = SpanContext(span.trace_id, span.parent_id, span.is_server, sampled)
    return ReadableSpan(
        span.name,
        context=SpanContext(span.trace_id, span.span_id, False, sampled),
        parent=parent,
        resource=Resource({"service.name": service}),
        attributes=dict(span.attributes),
        kind=SpanKind.SERVER if span.is_server else SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(_spans, min_size=1, max_size=3), _texts.filter(bool))
def test_spans_are_read_as_those_of_opentelemetry_are(spans: list[Span], service: str) -> None:
    ours = ExportTraceServiceRequest.FromString(export_request(spans, service))

    assert ours == encode_spans([_theirs(span, service) for span in spans])


def test_a_number_that_is_none_travels_as_one() -> None:
    span = Span("s", True, 1, 1, 0, 0, 1, {"x": float("nan")}, None)
    told = ExportTraceServiceRequest.FromString(export_request([span], "frugal"))
    (attribute,) = told.resource_spans[0].scope_spans[0].spans[0].attributes

    assert struct.pack("<d", attribute.value.double_value) == struct.pack("<d", float("nan"))
