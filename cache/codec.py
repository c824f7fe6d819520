"""An entry as bytes, for stores outside this process.

    version (1) | flags (1) | length of the labels (4) | digest (16) | labels | body

The labels (route, model, tags, time) stand in front and uncompressed, so that a
search reads the head of an entry only. The digest covers everything and is
keyed with the entry's own key: what was damaged, cut short, written by somebody
else or copied from another key, another tenant's included, is told apart.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b

import msgspec

from cache.types import CachedReply

VERSION = 1
HEAD_BYTES = 1024
_COMPRESSED = 1
_COMPRESS_FROM = 2048
"""Bytes of a body; packing a smaller one costs more time than its room is worth."""
_MAX_BODY = 256 * 1024 * 1024
_FIXED = 22
_DIGEST = slice(6, _FIXED)


class Corrupt(ValueError):
    """The bytes are no entry of this version under this key."""


class Labels(msgspec.Struct, array_like=True, frozen=True):
    """What can be told of an entry without reading its body. `stamp` is its epoch."""

    route: str
    model: str
    tags: tuple[str, ...]
    created_at: float
    expires_at: float
    stamp: int
    body_bytes: int


class _Body(msgspec.Struct, array_like=True, frozen=True):
    parts: tuple[bytes, ...]
    streamed: bool
    usage: dict[str, float | int | bool | str]
    path: str
    usage_event: bytes | None
    worth: float


class Stored(msgspec.Struct, frozen=True):
    """An entry as it was found, and what the store needs to know of it."""

    reply: CachedReply
    expires_at: float
    stamp: int


_encode = msgspec.msgpack.Encoder().encode
_labels = msgspec.msgpack.Decoder(Labels)
_body = msgspec.msgpack.Decoder(_Body)


def dump(key: bytes, stored: Stored) -> bytes:
    """Return an entry as bytes that only `key` can read."""
    reply = stored.reply
    body = _encode(
        _Body(reply.parts, reply.streamed, dict(reply.usage), reply.path, reply.usage_event,
              reply.worth)
    )  # fmt: skip
    labels = _encode(
        Labels(reply.route, reply.model, reply.tags, reply.created_at, stored.expires_at,
               stored.stamp, len(body))
    )  # fmt: skip
    flags = 0
    if len(body) >= _COMPRESS_FROM:
        flags, body = _COMPRESSED, zlib.compress(body, 1)
    head = bytes((VERSION, flags)) + len(labels).to_bytes(4, "big")
    return b"".join((head, _digest(key, head, labels, body), labels, body))


def load(key: bytes, data: bytes) -> Stored:
    """Return the entry that `dump` wrote under this key. Raises Corrupt."""
    labels, end = _read_labels(data)
    if data[_DIGEST] != _digest(key, data[:6], data[_FIXED:end], data[end:]):
        raise Corrupt("expected an entry of this key, found other bytes")
    try:
        body = _body.decode(_inflated(data[end:], labels.body_bytes) if data[1] else data[end:])
    except (msgspec.MsgspecError, ValueError, zlib.error) as exc:
        raise Corrupt(str(exc)) from exc
    reply = CachedReply(
        parts=body.parts,
        streamed=body.streamed,
        model=labels.model,
        usage=body.usage,
        created_at=labels.created_at,
        path=body.path,
        usage_event=body.usage_event,
        worth=body.worth,
        route=labels.route,
        tags=labels.tags,
    )
    return Stored(reply, labels.expires_at, labels.stamp)


def load_labels(head: bytes) -> Labels:
    """Return the labels from an entry's first bytes, unchecked. Raises Corrupt."""
    return _read_labels(head)[0]


def _read_labels(data: bytes) -> tuple[Labels, int]:
    if len(data) < _FIXED or data[0] != VERSION or data[1] > _COMPRESSED:
        raise Corrupt(f"expected an entry of version {VERSION}, found other bytes")
    end = _FIXED + int.from_bytes(data[2:6], "big")
    try:
        return _labels.decode(data[_FIXED:end]), end
    except (msgspec.MsgspecError, ValueError) as exc:  # a text may hold bytes that are none
        raise Corrupt(str(exc)) from exc


def _digest(key: bytes, *parts: bytes) -> bytes:
    digest = blake2b(key=key, digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _inflated(body: bytes, size: int) -> bytes:
    if size > _MAX_BODY:
        raise Corrupt(f"expected at most {_MAX_BODY} bytes, found an entry of {size}")
    return zlib.decompressobj().decompress(body, size or 1)
