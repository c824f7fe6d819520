"""What processes say to each other about an answer under way."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class State(IntEnum):
    """How far the answer is."""

    GROWING = 0
    WHOLE = 1
    FAILED = 2
    GONE = 3


class Want(msgspec.Struct, array_like=True, frozen=True, tag="want"):
    """A follower asks for the pieces from number `have` on, to be sent to its channel.

    A negative `have` says that it follows no longer.
    """

    token: bytes
    channel: bytes
    have: int


class Pieces(msgspec.Struct, array_like=True, frozen=True, tag="pieces"):
    """A leader sends its pieces from number `first` on."""

    token: bytes
    first: int
    pieces: list[bytes]
    state: State


_decoder: msgspec.msgpack.Decoder[Want | Pieces] = msgspec.msgpack.Decoder(Want | Pieces)


def read(data: bytes) -> Want | Pieces:
    """Return a message. Raises ValueError."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as exc:
        raise ValueError(f"expected a message of another process: {exc}") from exc
