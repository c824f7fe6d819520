"""Bodies that were answered from the cache: they are likely to come again, byte for byte."""

from __future__ import annotations

from gateway.request import Asked

MAX_BYTES = 16 * 1024
"""A longer body is not remembered: it takes as long to compare as its answer is worth."""
_GENERATION = 512


class Recent:
    """Remembers some of the last bodies, so that reading and naming them is done once.

    Two generations: what is asked for moves to the newer one, and the older one
    goes as a whole. At most twice `_GENERATION` bodies of `MAX_BYTES` stay in
    memory. What was read is shared by its requests, which change nothing in it.
    """

    def __init__(self) -> None:
        self._newer: dict[bytes, Asked] = {}
        self._older: dict[bytes, Asked] = {}

    def find(self, raw: bytes) -> Asked | None:
        """Return a body as it was read before."""
        if len(raw) > MAX_BYTES:
            return None
        return self._newer.get(raw) or self._older.get(raw)

    def add(self, raw: bytes, asked: Asked) -> None:
        """Remember a body."""
        if len(raw) > MAX_BYTES or raw in self._newer:
            return
        if len(self._newer) >= _GENERATION:
            self._newer, self._older = {}, self._newer
        self._newer[raw] = asked
