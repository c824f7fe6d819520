"""How many requests were refused, and why.

They are counted, and are no lines of the ledger: whoever is refused could fill
the disk with those. Several workers tell each other in a folder, a file each,
so that whichever is asked tells of them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.settings import Team

TELL_EVERY_S = 1.0
"""How long a worker's refusals may be unknown to the others, in seconds."""
_MOST = 1_000
"""Pairs of reason and key that are told apart; what comes beyond is counted by its reason."""
_STALE_S = 86_400.0
_FILE = ".json"
_log = logging.getLogger(__name__)
_Counts = list[tuple[str, str, str, int]]


class Refusals:
    """Counts the refusals of one process, since its start."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._board: Board | None = None

    def count(self, code: str, tenant: str = "", key: str = "", times: int = 1) -> None:
        """Count one; tenant and key are empty where nobody was recognised."""
        which = (code, tenant, key)
        if which not in self._counts and len(self._counts) >= _MOST:
            which = (code, "", "")
        self._counts[which] += times

    def use(self, board: Board | None) -> None:
        """Report from now on what the others on this board have counted, too."""
        self._board = board

    def own(self) -> _Counts:
        """Return what this process has counted."""
        return [(*which, count) for which, count in self._counts.items()]

    def report(self) -> list[dict[str, Any]]:
        """Return the counts of all workers, the largest first."""
        counts = Counter(self._counts)
        for code, tenant, key, count in self._board.others() if self._board else ():
            counts[code, tenant, key] += count
        return [
            {"code": code, "tenant": tenant, "key": key, "requests": count}
            for (code, tenant, key), count in counts.most_common()
        ]

    def by_code(self) -> dict[str, int]:
        """Return how many all workers have refused for each reason."""
        sums: Counter[str] = Counter()
        for row in self.report():
            sums[row["code"]] += row["requests"]
        return dict(sums)


class Board:
    """Where the workers of one run tell each other: a folder with a file each."""

    def __init__(self, folder: Path, team: Team) -> None:
        self._folder = folder
        self._run = team.token[:-2]
        self._own = folder / f"{team.token}{_FILE}"

    def tell(self, counts: _Counts) -> None:
        """Put this worker's counts in the place of those before. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        draft = self._own.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(counts))
        os.replace(draft, self._own)

    def before(self) -> _Counts:
        """Return what the worker whose place this one takes has told."""
        return _read(self._own)

    def others(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield what the other workers of the run have told."""
        for path in self._folder.glob(f"{self._run}*{_FILE}"):
            if path != self._own:
                yield from _read(path)

    def sweep(self, now: float) -> None:
        """Remove what runs have left that ended long ago."""
        for path in self._folder.glob(f"*{_FILE}"):
            with contextlib.suppress(OSError):
                if not path.name.startswith(self._run) and path.stat().st_mtime < now - _STALE_S:
                    path.unlink()

    def leave(self) -> None:
        """Take this worker's file away."""
        with contextlib.suppress(OSError):
            self._own.unlink()


@asynccontextmanager
async def told_to_workers(refusals: Refusals, folder: Path, team: Team) -> AsyncIterator[None]:
    """Let the workers of a team know of each other's refusals; one alone needs nobody."""
    if team.workers == 1:
        yield
        return
    board = Board(folder, team)
    for code, tenant, key, count in board.before():
        refusals.count(code, tenant, key, count)
    refusals.use(board)
    board.sweep(time.time())
    task = asyncio.create_task(_tell(refusals, board))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        board.leave()


async def _tell(refusals: Refusals, board: Board) -> None:
    told: _Counts = refusals.own()
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        if (counts := refusals.own()) != told:
            try:
                await asyncio.to_thread(board.tell, counts)
                told = counts
            except OSError as exc:
                _log.warning("other workers cannot be told of refusals: %s", exc)


def _read(path: Path) -> _Counts:
    """Return a worker's counts; none where its file is gone or is none of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Counts)
    except (OSError, msgspec.DecodeError):
        return []
