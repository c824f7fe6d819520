"""Whether a store of keys has changed, for microseconds: its rows are read only then."""

from __future__ import annotations

import sqlite3
from pathlib import Path

Mark = tuple[int, int]


class Changes:
    """Looks at the file at `path`; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    @property
    def has_something_to_look_at(self) -> bool:
        """Return whether there is a file, or was one a moment ago."""
        return self._connection is not None or self._path.exists()

    def mark(self) -> Mark | None:
        """Return what is another after every change; None without a file.

        Raises sqlite3.Error or OSError where it cannot be looked at.
        """
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            self.close()
            return None
        if self._connection is None or self._inode != inode:
            self.close()
            self._connection = sqlite3.connect(self._path, check_same_thread=False)
            self._inode = inode
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return inode, version

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
