"""Where the workers of one machine tell each other how they stand: a folder with a file each.

Whichever worker is scraped tells of them all. One that is gone is told of no longer than
`STALE_S`, though its file may stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.settings import Team
from gateway.telemetry.process import Figures

TELL_EVERY_S = 2.0
STALE_S = 10.0
_LEFT_BEHIND_S = 86_400.0
_FILE = ".json"
_log = logging.getLogger(__name__)


class FigureBoard:
    """The figures of one team; `read` returns this worker's own."""

    def __init__(self, folder: Path, team: Team, read: Callable[[], Figures]) -> None:
        self._folder = folder
        self._run = team.token[:-2]
        self._number = str(int(team.token[-2:] or "0", 16))
        self._own = folder / f"{team.token}{_FILE}"
        self._read = read

    def tell(self, figures: Figures) -> None:
        """Put this worker's figures in the place of those before. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        draft = self._own.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(figures))
        os.replace(draft, self._own)

    def own(self) -> tuple[str, Figures]:
        """Return this worker's number and its figures now; called in its event loop."""
        return self._number, self._read()

    def others(self) -> dict[str, Figures]:
        """Return the figures of the other workers by number, as they told them last."""
        found = {}
        for path in self._folder.glob(f"{self._run}*{_FILE}") if self._run else ():
            # A file is gone, or half a day old, while others look: then there is nothing to tell.
            with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
                if path != self._own and path.stat().st_mtime > time.time() - STALE_S:
                    number = str(int(path.stem[len(self._run) :], 16))
                    found[number] = msgspec.json.decode(path.read_bytes(), type=Figures)
        return found

    async def keep_telling(self) -> None:
        """Tell the others from time to time."""
        while True:
            try:
                await asyncio.to_thread(self.tell, self._read())
            except OSError as exc:
                _log.warning("other workers cannot be told how this one stands: %s", exc)
            await asyncio.sleep(TELL_EVERY_S)

    def sweep(self) -> None:
        """Remove this worker's file, and what runs have left that ended long ago."""
        for path in self._folder.glob(f"*{_FILE}"):
            with contextlib.suppress(OSError):
                if path == self._own or path.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                    path.unlink()


@asynccontextmanager
async def figure_board(
    folder: Path, team: Team, read: Callable[[], Figures]
) -> AsyncIterator[FigureBoard]:
    """Yield the board of a team, telling it while the block is entered; one alone tells nobody."""
    board = FigureBoard(folder, team, read)
    if team.workers == 1:
        yield board
        return
    task = asyncio.create_task(board.keep_telling())
    try:
        yield board
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        board.sweep()
