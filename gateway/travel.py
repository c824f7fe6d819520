"""Released parts as bytes, for the way from the process that pays to those that share."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cache.types import CachedReply
from gateway.money.usage import Usage
from gateway.released import Released, Told, usage_of, usage_told
from gateway.wire import Part


class _Piece(msgspec.Struct, array_like=True, frozen=True):
    data: bytes
    is_usage_only: bool
    model: str
    path: str
    usage: Usage | None


_encode = msgspec.msgpack.Encoder().encode
_piece = msgspec.msgpack.Decoder(_Piece)


class ReleasedCodec:
    """Writes and reads what one process releases for another."""

    def dump(self, piece: Released) -> bytes:
        """Return a piece as bytes."""
        part, leader = piece.part, piece.leader
        return _encode(
            _Piece(part.data, part.is_usage_only, leader.model, leader.path, usage_of(leader))
        )

    def load(self, data: bytes) -> Released:
        """Return the piece that `dump` wrote. Raises ValueError."""
        try:
            piece = _piece.decode(data)
        except (msgspec.MsgspecError, ValueError) as exc:
            raise ValueError(f"expected a piece of an answer: {exc}") from exc
        usage = piece.usage
        part = Part(
            piece.data, usage=usage if piece.is_usage_only else None,
            is_usage_only=piece.is_usage_only,
        )  # fmt: skip
        return Released(part, Told(piece.model, piece.path, usage))

    def pieces(self, reply: CachedReply) -> Sequence[Released]:
        """Return the pieces of a whole answer."""
        told = Told(reply.model, reply.path, usage_told(reply.usage))
        parts = [Part(data) for data in reply.parts]
        if reply.usage_event is not None:
            parts.append(Part(reply.usage_event, is_usage_only=True))
        return [Released(part, told) for part in parts]
