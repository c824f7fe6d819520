"""Where the bundles that routes have learnt by themselves are had on this machine.

The machine that has trained one puts it into a ledger that others share, before it says so
in a step; they fetch it when they follow that step. The step names its id, which stands for
every byte of it: what was changed on the way is not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gateway.learning.book import Book
from gateway.money.location import is_postgres
from router.bundle import BundleError, identity_at
from router.parcel import packed, unpacked

_log = logging.getLogger(__name__)


class Bundles:
    """The bundles of one ledger's routes. Blocks: call it from a thread.

    `place` is the folder of what this machine has trained and fetched; with None nothing is
    fetched. `is_shared` says whether other machines see the ledger.
    """

    def __init__(self, url: str, place: Path | None, *, is_shared: bool | None = None) -> None:
        self._url = url
        self._place = place
        self._is_shared = is_postgres(url) if is_shared is None else is_shared

    def publish(self, route: str, path: Path, identity: str, keep: Collection[str]) -> None:
        """Put a bundle where others find it, and let go there of the route's that are not kept.

        Raises BundleError or LedgerError.
        """
        if not self._is_shared:
            return
        content = packed(path, identity)
        book = Book(self._url)
        try:
            book.put_bundle(route, identity, content, {identity, *keep})
        finally:
            book.close()
        _log.info("route %s: bundle %s is in the ledger, %d bytes", route, identity, len(content))

    def at(self, told: Mapping[str, Any]) -> Path:
        """Return the folder of the bundle that a step tells of, fetched where it is not here.

        Raises BundleError or LedgerError.
        """
        path, identity = Path(told["path"]), str(told["id"])
        own = None if self._place is None else self._place / identity.replace(":", "-")
        for each in (path, own):
            if each is not None and _is_there(each, identity):
                return each
        if own is None or not self._is_shared:
            raise BundleError(f"{path}: bundle {identity} is not there")
        book = Book(self._url)
        try:
            content = book.bundle(identity)
        finally:
            book.close()
        if content is None:
            raise BundleError(f"bundle {identity} is neither in {path} nor in the ledger")
        unpacked(content, own, identity)
        _log.info("bundle %s was fetched from the ledger into %s", identity, own)
        return own


def _is_there(path: Path, identity: str) -> bool:
    try:
        return identity_at(path) == identity
    except BundleError:
        return False
