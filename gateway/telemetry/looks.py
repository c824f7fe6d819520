"""Looks at a ledger that must not hold a scrape up, nor a stop, however long they take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Generic, TypeVar

from gateway.money.errors import LedgerError, ReportError

T = TypeVar("T")
WITHIN_S = 8.0
"""Prometheus itself waits for ten."""
_log = logging.getLogger(__name__)


class Look(Generic[T]):
    """One kind of look, in a thread of its own. Who asks while one is under way shares it."""

    def __init__(self, look: Callable[[], T], *, within_s: float | None = None) -> None:
        self._look = look
        self._within_s = WITHIN_S if within_s is None else within_s
        self._found: asyncio.Future[T | None] | None = None

    async def __call__(self) -> T | None:
        """Return what was found; None where the ledger cannot be read, or not in time."""
        if self._found is None or self._found.done():
            self._found = asyncio.get_running_loop().create_future()
            # No executor: a stop would wait for its threads, and one may hang with its server.
            Thread(target=self._work, args=(self._found,), name="look", daemon=True).start()
        await asyncio.wait({self._found}, timeout=self._within_s)
        if self._found.done():
            return self._found.result()
        _log.warning("a scrape does without what takes the ledger longer than %g s", self._within_s)
        return None

    def _work(self, found: asyncio.Future[T | None]) -> None:
        result: T | None = None
        try:
            result = self._look()
        except (LedgerError, ReportError) as exc:
            _log.warning("a scrape could not read the ledger: %s", exc)
        except Exception:
            _log.exception("a scrape could not read the ledger")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            found.get_loop().call_soon_threadsafe(_give, found, result)


def _give(found: asyncio.Future[T | None], result: T | None) -> None:
    if not found.done():
        found.set_result(result)
