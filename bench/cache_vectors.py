"""Vectors of many texts, computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from cache.semantic.embedder import Embedder, load_embedder

FOLDER = Path("~/.cache/frugal-gateway/bench").expanduser()


class Vectors:
    """Vectors of one embedding model, kept in a folder.

    The model is loaded when the first text is new.
    """

    def __init__(self, folder: Path = FOLDER, model: str = "all-MiniLM-L6-v2") -> None:
        self._folder = folder
        self._model = model
        self._embedder: Embedder | None = None

    def of(self, name: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return one row of unit length a text; `name` is shown while they are computed."""
        digest = hashlib.sha256("\0".join((self._model, *texts)).encode()).hexdigest()[:24]
        path = self._folder / f"{digest}.npy"
        if path.exists():
            kept: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
            return kept
        rows = self._embedded(name, texts)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, rows)
        part.replace(path)
        return rows

    def _embedded(self, name: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if self._embedder is None:
            self._embedder = load_embedder(self._model, threads=1)
        embedder = self._embedder
        rows = np.empty((len(texts), embedder.width), np.float32)
        with Progress(console=Console(stderr=True)) as progress:
            for at in progress.track(range(0, len(texts), 64), description=f"embedding {name}"):
                rows[at : at + 64] = embedder.embed(texts[at : at + 64])
        return rows
