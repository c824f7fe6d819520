"""Answers that come compressed although `identity` was asked for."""

from __future__ import annotations

import zlib

from gateway.errors import ProviderProtocolError

_WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Decoder:
    """Inflates one body, piece by piece, and never more than asked for."""

    def __init__(self, window_bits: int, label: str) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self._label = label

    def feed(self, data: bytes, cap: int) -> bytes:
        """Return the decoded bytes. Raises ProviderProtocolError, also for more than `cap`."""
        try:
            decoded = self._inflate.decompress(data, cap)
        except zlib.error as exc:
            raise ProviderProtocolError(f"{self._label} sent a broken compressed body") from exc
        if self._inflate.unconsumed_tail:
            raise ProviderProtocolError(
                f"{self._label} sent a compressed body of more than {cap} bytes"
            )
        return decoded


def decoder_for(encoding: bytes, label: str) -> Decoder | None:
    """Return what decodes a Content-Encoding; None for identity. Raises ProviderProtocolError."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    if (bits := _WINDOW_BITS.get(name)) is not None:
        return Decoder(bits, label)
    raise ProviderProtocolError(
        f"{label} answered with a content-encoding that was not asked for; expected identity"
    )
