"""One at a time among the processes of a machine: who holds a name's file has its turn.

The lock (`flock`) goes with the process that holds it, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_LOOK_AGAIN_S = 0.05
_log = logging.getLogger(__name__)


class Turns:
    """Turns by name, kept in `folder`; where files cannot be made everybody has a turn at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[bool]:
        """Have a name's turn within the block; yield whether another one's was waited for."""
        path, has_waited = self._folder / name, False
        while (fd := self._take(path)) is None:
            has_waited = True
            await asyncio.sleep(_LOOK_AGAIN_S)
        try:
            yield has_waited
        finally:
            if fd >= 0:
                with contextlib.suppress(OSError):
                    path.unlink()
                os.close(fd)

    def _take(self, path: Path) -> int | None:
        """Return the locked file, None while another holds it, -1 where there can be none."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            _log.warning("%s: turns cannot be taken there: %s", self._folder, exc)
            return -1
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before us has removed it: then it is no name's file any more.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except OSError:
            pass
        os.close(fd)
        return None
