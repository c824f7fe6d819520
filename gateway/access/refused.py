"""How many requests were refused, and why.

They are counted, and are no lines of the ledger: whoever is refused could fill
the disk with those.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

_MOST = 1_000
"""Pairs of reason and key that are told apart; what comes beyond is counted by its reason."""


class Refusals:
    """Counts the refusals of one process, since its start."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, code: str, tenant: str = "", key: str = "") -> None:
        """Count one; tenant and key are empty where nobody was recognised."""
        which = (code, tenant, key)
        if which not in self._counts and len(self._counts) >= _MOST:
            which = (code, "", "")
        self._counts[which] += 1

    def report(self) -> list[dict[str, Any]]:
        """Return the counts, the largest first."""
        return [
            {"code": code, "tenant": tenant, "key": key, "requests": count}
            for (code, tenant, key), count in self._counts.most_common()
        ]
