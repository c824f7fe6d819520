"""How a worker speaks to the semantic cache's process: msgpack in frames over a Unix socket.

    length (4, big-endian) | msgpack

Many calls share a connection and are answered in any order. The first one opens
a place; what was opened is let go with the connection. A method of the cache that
workers may call is one line in `CALLS`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_origin

import msgspec
import numpy as np
from numpy.typing import NDArray

from cache.scope import Scope
from cache.semantic.answers import Place
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.found import SemanticHit, SemanticStats, Terms
from cache.semantic.scope import Asked
from cache.types import CachedReply

_LENGTH_BYTES = 4
_LONGEST = 64 * 1024 * 1024
_Row = NDArray[np.float32]


class Call(msgspec.Struct, array_like=True, frozen=True):
    """One call. `given` are the arguments, in the order of its signature."""

    number: int
    name: str
    given: msgspec.Raw


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What became of a call: `found`, or `trouble` with its kind, a word, and a sentence."""

    number: int
    trouble: tuple[str, str] | None
    found: msgspec.Raw = msgspec.Raw(b"\xc0")


class Opening(msgspec.Struct, array_like=True, frozen=True):
    """What a connection is for: vectors alone, or the answers of a place too."""

    place: Place
    is_for_answers: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """What a call takes and gives; `named` are those of the last arguments passed by name."""

    takes: Any
    gives: Any
    named: tuple[str, ...] = ()


OPEN: Final = "open"
CALLS: Final = {
    OPEN: Signature(tuple[Opening], str),
    "whole": Signature(tuple[str], _Row | None),
    "vector": Signature(tuple[str], _Row | None),
    "alike": Signature(tuple[str, str], bool | None),
    "find": Signature(tuple[Asked, _Row, Terms, str], SemanticHit | None),
    "keep": Signature(tuple[Asked, _Row, CachedReply, str, Terms], None, ("answer", "terms")),
    "drop": Signature(tuple[Scope, str | None, bool], int, ("question", "dry_run")),
    "observe": Signature(tuple[Asked, str, Terms, bool], None, ("was_right",)),
    "teach": Signature(tuple[Asked, str, bool], None, ("was_right",)),
    "doubt": Signature(tuple[str, str], bool),
    "alias": Signature(tuple[Asked, str], None),
    "budgets": Signature(tuple[()], list[tuple[str, str, ErrorBudget]]),
    "count": Signature(tuple[()], int),
    "counted": Signature(tuple[()], SemanticStats),
}


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value, np.float32).tobytes()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not travel")


def _made(kind: Any, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    if get_origin(kind) is Counter:
        return Counter(value)
    return np.frombuffer(value, np.float32)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def packed(value: object) -> bytes:
    """Return a value as bytes."""
    return _encoder.encode(value)


def unpacked(data: bytes | msgspec.Raw, kind: Any) -> Any:
    """Return a value of a kind. Raises ValueError for other bytes."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, dec_hook=_made)
    return decoder.decode(data)


def framed(value: object) -> bytes:
    """Return a value as one frame."""
    data = packed(value)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame. Raises EOFError at the end, ValueError for a foreign one."""
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    if length > _LONGEST:
        raise ValueError(f"expected a frame of at most {_LONGEST} bytes, found {length}")
    return await reader.readexactly(length)
