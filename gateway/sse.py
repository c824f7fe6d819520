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

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BLOCK_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\r\n\r|\n\r|\r\r\n")
_BOM = b"\xef\xbb\xbf"


class SseError(ValueError):
    """The stream is not one of server-sent events, or an event is too large."""


class Event(NamedTuple):
    """One event.

    `raw` is `data: …` and a blank line: the event's own bytes where it came in
    that shape, else the same data written so. `data` is the payload alone.
    """

    raw: bytes
    data: bytes
    name: bytes = b""


class SseSplitter:
    """Cuts bytes into events; one for each stream."""

    __slots__ = ("_is_first", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._is_first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that are complete with these bytes. Raises SseError."""
        data = self._rest + chunk if self._rest else chunk
        if self._is_first:
            data = self._without_mark(data)
        if b"\r" in data:
            return self._feed_any(data)
        blocks = data.split(b"\n\n")
        self._keep(blocks.pop())
        return [event for block in blocks if (event := _plain(block)) is not None]

    def close(self) -> list[Event]:
        """Return the event that only lacks its blank line, as lenient servers end a stream."""
        rest, self._rest = self._rest.strip(b"\r\n"), b""
        event = _parse(rest) if rest else None
        return [] if event is None else [event]

    def _feed_any(self, data: bytes) -> list[Event]:
        """Split on every legal line end.

        A CR at the very end waits for its LF, lest the LF look like a blank line.
        """
        held = b""
        if data.endswith(b"\r"):
            data, held = data[:-1], b"\r"
        lines = _LINE_END.sub(b"\n", data)
        blocks = lines.split(b"\n\n")
        rest = blocks.pop()
        self._keep(rest + held)
        return [event for block in blocks if (event := _plain(block)) is not None]

    def _keep(self, rest: bytes) -> None:
        if len(rest) > MAX_EVENT:
            raise SseError(f"expected events of at most {MAX_EVENT} bytes, found a longer one")
        self._rest = rest

    def _without_mark(self, data: bytes) -> bytes:
        if len(data) < len(_BOM) and _BOM.startswith(data):
            return data
        self._is_first = False
        return data.removeprefix(_BOM)
