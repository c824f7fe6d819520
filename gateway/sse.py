"""Server-sent events, cut out of a byte stream as it arrives.

After the WHATWG HTML standard, section 9.2.6: lines end in LF, CRLF or CR, a
blank line ends an event, a colon begins a comment, an event without data is
none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_EVENT = 1024 * 1024
"""Bytes of one event, line ends included."""

_LINE_END = re.compile(rb"\r\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream is not one of server-sent events, or an event is too large."""


class Event(NamedTuple):
    """One event.

    `raw` is `data: …` and a blank line: the event's own bytes where it came in
    that shape, else the same data so written. `data` is the payload alone; the
    lines of a payload of several are joined by a space, which JSON permits.
    """

    raw: bytes
    data: bytes
    name: bytes = b""


class SseSplitter:
    """Cuts bytes into events; one for each stream."""

    __slots__ = ("_after_cr", "_is_first", "_rest", "_size")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0
        self._is_first = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete with these bytes. Raises SseError."""
        if self._is_plain(chunk):
            return [Event(chunk, chunk[6:-2])]
        if b"\r" in chunk or self._after_cr:
            chunk = self._with_lf(chunk)
        if b"\n" not in chunk:  # cannot end an event: joined only once something can
            self._keep(chunk)
            return []
        if self._rest:
            chunk = b"".join([*self._rest, chunk])
            self._rest.clear()
        if self._is_first:
            self._is_first = False
            chunk = chunk.removeprefix(_BOM)
        blocks = chunk.split(b"\n\n")
        self._size = 0
        self._keep(blocks.pop())
        return [event for block in blocks if (event := _event(block)) is not None]

    def close(self) -> list[Event]:
        """Return the last event where only its blank line is missing."""
        rest = b"".join(self._rest)
        self._rest.clear()
        event = _event(rest.removeprefix(_BOM) if self._is_first else rest)
        return [] if event is None else [event]

    def _is_plain(self, chunk: bytes) -> bool:
        """Return whether this is just one event in the usual shape, as most chunks are."""
        return (
            chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and chunk.count(b"\n") == 2
            and b"\r" not in chunk
            and not self._rest
            and not self._after_cr
            and len(chunk) <= MAX_EVENT
        )

    def _with_lf(self, chunk: bytes) -> bytes:
        """Return the chunk with LF for every line end; a CRLF may be cut in two."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return _LINE_END.sub(b"\n", chunk)

    def _keep(self, rest: bytes) -> None:
        self._size += len(rest)
        if self._size > MAX_EVENT:
            raise SseError(f"expected events of at most {MAX_EVENT} bytes, found a longer one")
        if rest:
            self._rest.append(rest)


def _event(block: bytes) -> Event | None:
    if len(block) > MAX_EVENT:
        raise SseError(f"expected events of at most {MAX_EVENT} bytes, found one of {len(block)}")
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(block + b"\n\n", block[6:])
    return _event_of_lines(block.split(b"\n"))


def _event_of_lines(lines: list[bytes]) -> Event | None:
    name = b""
    payload: list[bytes] = []
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            payload.append(value)
        elif field == b"event":
            name = value
    if not payload:
        return None
    data = b" ".join(payload)
    return Event(b"data: " + data + b"\n\n", data, name)
