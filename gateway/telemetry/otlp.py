"""Spans as the bytes of an OTLP export request, written straight from what we know of them.

OpenTelemetry's own objects of a span, and of its message, cost some ten times as
much as the bytes. The fields and their numbers are those of the OpenTelemetry
protocol 1.x (trace/v1/trace.proto, common/v1/common.proto); every value is
written as protobuf would: wire types 0, 1, 2 and 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct as Layout

from gateway.telemetry.spans import Span, Value

_DOUBLE = Layout("<d").pack
_FIXED_64 = Layout("<Q").pack
_FIXED_32 = Layout("<I").pack
_SERVER, _CLIENT = 2, 3
_NO_SCOPE = b"\x0a\x00"
_ERROR = b"\x18\x02"  # status.code
_SAYS_IF_REMOTE, _IS_REMOTE = 0x100, 0x200


def export_request(spans: Iterable[Span], service: str) -> bytes:
    """Return the request that hands spans of one service to a collector."""
    resource = _field(1, _attribute("service.name", service))
    scope = [_NO_SCOPE, *[_field(2, _span(span)) for span in spans]]
    return _field(1, _field(1, resource) + _field(2, b"".join(scope)))


def _span(span: Span) -> bytes:
    kind = _SERVER if span.is_server else _CLIENT
    flags = _SAYS_IF_REMOTE
    parent = b""
    if span.parent_id:
        parent = b"\x22\x08" + span.parent_id.to_bytes(8, "big")
        flags |= _IS_REMOTE if span.is_server else 0
    status = b""
    if span.error:
        status = _field(2, span.error.encode()) + _ERROR
    pieces = [
        b"\x0a\x10", span.trace_id.to_bytes(16, "big"),
        b"\x12\x08", span.span_id.to_bytes(8, "big"), parent,
        _field(5, span.name.encode()), b"\x30", _varint(kind),
        b"\x39", _FIXED_64(span.start_ns), b"\x41", _FIXED_64(span.end_ns),
    ]  # fmt: skip
    pieces += [_field(9, _attribute(name, value)) for name, value in span.attributes.items()]
    pieces += [_field(15, status), b"\x85\x01", _FIXED_32(flags)]
    return b"".join(pieces)


def _attribute(name: str, value: Value) -> bytes:
    said = _value(value)
    return _key(name) + b"\x12" + _varint(len(said)) + said


@lru_cache(maxsize=512)
def _key(name: str) -> bytes:
    """Return an attribute's name; we use a few dozen."""
    return _field(1, name.encode())


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _field(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE(value)
    return _field(5, b"".join([_field(1, _value(each)) for each in value]))


def _field(number: int, data: bytes) -> bytes:
    """Return a field of so many bytes."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a number seven bits a byte, the lowest first; a negative one as 64 bits."""
    if 0 <= number < 128:
        return number.to_bytes(1, "little")
    number &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
