"""Cells on disk beside a store, so that a restart need not build them.

A snapshot may be older than the store: what was dropped since is noticed when it is
found, what was added since is taken in from the store. One that is damaged, or made
for another store or embedder, is as if there were none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from cache.index.cells import CellIndex

_DIGEST_BYTES = 16
_COUNT_BYTES = 8
_log = logging.getLogger(__name__)


class Snapshots:
    """The snapshots of one store and embedder, in a folder of their own."""

    def __init__(self, folder: Path, width: int) -> None:
        self._folder = folder
        self._width = width

    def load(self) -> Iterator[tuple[bytes, CellIndex]]:
        """Yield scopes and their cells."""
        for path in sorted(self._folder.glob("*.cells")):
            data = path.read_bytes()
            digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
            if digest != _digest(path.stem, body):
                _log.warning("a damaged snapshot is passed over: %s", path)
                continue
            count = int.from_bytes(body[:_COUNT_BYTES], "big")
            ids = np.frombuffer(body, np.int64, count, _COUNT_BYTES)
            packed = np.frombuffer(body, np.uint8, offset=_COUNT_BYTES + ids.nbytes)
            yield bytes.fromhex(path.stem), CellIndex.restored(self._width, ids, packed)

    def save(self, scope: bytes, cells: CellIndex) -> None:
        """Write one scope's cells, in one step. Raises OSError."""
        ids, data = cells.dumped()
        body = len(ids).to_bytes(_COUNT_BYTES, "big") + ids.tobytes() + data.tobytes()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._folder / f"{scope.hex()}.{os.getpid()}.part"
        part.write_bytes(_digest(scope.hex(), body) + body)
        part.replace(self._folder / f"{scope.hex()}.cells")

    def drop(self, scope: bytes) -> None:
        """Remove the snapshot of a scope that has no cells any more."""
        (self._folder / f"{scope.hex()}.cells").unlink(missing_ok=True)


def _digest(name: str, body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES, key=name.encode()[:64]).digest()
