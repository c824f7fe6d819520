"""Which entry answered which request lately, so that a client's word on an answer finds it."""

from __future__ import annotations

from collections import OrderedDict

from cache.fingerprint import partition
from cache.semantic.scope import Asked

MOST_SERVED = 10_000
"""Answers remembered; a word on an earlier one changes nothing here."""


class Served:
    """The newest hits by request; used by the store's thread."""

    def __init__(self, most: int = MOST_SERVED) -> None:
        self._most = most
        self._hits: OrderedDict[str, tuple[Asked, str]] = OrderedDict()

    def note(self, request_id: str, asked: Asked, entry_id: str) -> None:
        """Remember who answered a request."""
        self._hits[request_id] = asked, entry_id
        if len(self._hits) > self._most:
            self._hits.popitem(last=False)

    def take(self, request_id: str, tenant: str) -> tuple[Asked, str] | None:
        """Return what a tenant's request asked and who answered it, once; None where unknown."""
        found = self._hits.get(request_id)
        if found is None or found[0].tenant != tenant:
            return None
        return self._hits.pop(request_id)


def is_own(asked: Asked) -> bool:
    """Return whether answers to a question are its tenant's alone, not those of a corpus."""
    return asked.owner == partition(asked.tenant)
