"""Which entries somebody means: by key, tag, route, model, tenant, corpus or age."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cache.fingerprint import corpus_partition, partition, writer_mark


class Labelled(Protocol):
    """What an entry says of itself beside its key."""

    @property
    def route(self) -> str:
        """Return the route that was asked."""
        ...

    @property
    def model(self) -> str:
        """Return the model that answered."""
        ...

    @property
    def tags(self) -> Sequence[str]:
        """Return the tags of the request that paid for it."""
        ...

    @property
    def created_at(self) -> float:
        """Return when it was kept, in seconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The entries for which all that is given holds; with nothing given, every entry.

    `key` is a whole fingerprint; `before` keeps to entries that are older, in
    seconds since the epoch. A tenant's entries are those that it has to itself, and
    those of a corpus that it paid for; with a `corpus`, only the latter.
    """

    tenant: str | None = None
    route: str | None = None
    model: str | None = None
    tag: str | None = None
    key: bytes | None = None
    before: float | None = None
    corpus: str | None = None

    def matcher(self) -> Callable[[bytes, Labelled], bool]:
        """Return the test of one entry, by its key and labels."""
        prefix = partition(self.tenant) if self.tenant is not None else b""
        mark = writer_mark(self.tenant) if self.tenant is not None else ""
        place = corpus_partition(self.corpus) if self.corpus is not None else b""

        def matches(key: bytes, entry: Labelled) -> bool:
            return (
                (key.startswith(prefix) or mark in entry.tags)
                and key.startswith(place)
                and self.key in (None, key)
                and self.route in (None, entry.route)
                and self.model in (None, entry.model)
                and (self.tag is None or self.tag in entry.tags)
                and (self.before is None or entry.created_at < self.before)
            )

        return matches

    def dump(self) -> bytes:
        """Return the scope as bytes, equal for equal scopes."""
        told = (self.tenant, self.route, self.model, self.tag,
                None if self.key is None else self.key.hex(), self.before)  # fmt: skip
        # Without a corpus as before there were any: processes of two versions may share a Redis.
        return msgspec.json.encode(told if self.corpus is None else (*told, self.corpus))

    @classmethod
    def load(cls, data: bytes) -> Scope:
        """Return the scope that `dump` wrote. Raises ValueError."""
        try:
            told = msgspec.json.decode(data, type=list[str | float | None])
            tenant, route, model, tag, key, before, corpus = msgspec.convert(
                told if len(told) > _BEFORE_CORPORA else (*told, None), _Dumped
            )
            digest = None if key is None else bytes.fromhex(key)
        except (msgspec.MsgspecError, ValueError) as exc:
            raise ValueError(f"expected a scope, found other bytes: {exc}") from exc
        return cls(tenant, route, model, tag, digest, before, corpus)


_Text = str | None
_Dumped = tuple[_Text, _Text, _Text, _Text, _Text, float | None, _Text]
_BEFORE_CORPORA = 6


@dataclass(frozen=True, slots=True)
class Tally:
    """How many entries, and about how many bytes they hold."""

    entries: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.entries + other.entries, self.bytes + other.bytes)
