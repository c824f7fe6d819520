"""Copies of a store of keys, and how two of them become one.

Nothing that was said of a key is ever taken back: a name is given once, and the
earlier end of a key wins. So a machine's copy may be joined with the shared one
at any time and any number of times, and all come to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple


class HolderRow(NamedTuple):
    """A row of the table `holder`; `scopes`, `tags` and `limits` are JSON."""

    name: str
    tenant: str
    scopes: str
    tags: str
    limits: str | None
    created_at: float
    revoked_at: float | None

    @property
    def is_of(self) -> tuple[str | float | None, ...]:
        """Return what tells two holders of one name apart."""
        return self[:-1]


class KeyRow(NamedTuple):
    """A row of the table `api_key`."""

    digest: bytes
    name: str
    hint: str
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class KeyCopy:
    """All rows of a store, holders by name and keys by digest."""

    holders: Mapping[str, HolderRow] = field(default_factory=dict)
    keys: Mapping[bytes, KeyRow] = field(default_factory=dict, repr=False)

    def joined(self, shared: KeyCopy) -> KeyCopy:
        """Return what both say.

        Where one name was given on two machines at the same time, the shared one keeps it;
        the other's keys are gone, since they were made for somebody who may do something else.
        """
        holders = dict(self.holders)
        for name, theirs in shared.holders.items():
            mine = holders.get(name)
            holders[name] = theirs if mine is None else _one(mine, theirs)
        keys: dict[bytes, KeyRow] = {}
        for key in chain(self._of(holders), shared._of(holders)):
            kept = keys.get(key.digest)
            keys[key.digest] = key if kept is None else _sooner_ended(kept, key)
        return KeyCopy(holders, keys)

    def _of(self, holders: Mapping[str, HolderRow]) -> Iterator[KeyRow]:
        """Yield the keys of those that are among these holders."""
        for key in self.keys.values():
            if self.holders[key.name].is_of == holders[key.name].is_of:
                yield key


def _one(mine: HolderRow, theirs: HolderRow) -> HolderRow:
    if mine.is_of != theirs.is_of:
        return theirs
    return mine._replace(revoked_at=_sooner(mine.revoked_at, theirs.revoked_at))


def _sooner_ended(one: KeyRow, other: KeyRow) -> KeyRow:
    return one._replace(expires_at=_sooner(one.expires_at, other.expires_at))


def _sooner(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def changed(before: KeyCopy, after: KeyCopy) -> KeyCopy:
    """Return the rows that are new or otherwise than before."""
    return KeyCopy(
        {name: row for name, row in after.holders.items() if before.holders.get(name) != row},
        {digest: row for digest, row in after.keys.items() if before.keys.get(digest) != row},
    )
