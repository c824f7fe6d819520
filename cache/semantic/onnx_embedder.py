"""A BERT sentence encoder on ONNX Runtime, on few threads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from cache.semantic.embedder import Vector
from cache.semantic.onnx_graph import Shape, bert_graph

_WEIGHTS = "model.safetensors"
_LAYOUT = 1  # raised when the graph changes, since vectors of two layouts are not comparable
_ERRORS_ONLY = 3


def is_plain_bert(folder: Path) -> bool:
    """Return whether a checkpoint is a BERT encoder whose tokens are averaged."""
    if not all((folder / name).is_file() for name in (_WEIGHTS, "tokenizer.json")):
        return False
    try:
        Shape.of(_json(folder / "config.json"))
        pooling = _json(folder / "1_Pooling" / "config.json")
    except (OSError, ValueError):
        return False
    modes = {name for name, value in pooling.items() if value is True and "mode" in name}
    return modes == {"pooling_mode_mean_tokens"}


class OnnxEmbedder:
    """Runs one text at a time: on a processor a batch gains nothing, and padding costs."""

    def __init__(self, folder: Path, *, quantized: bool = True, threads: int = 1) -> None:
        config = _json(folder / "config.json")
        self.width: int = config["hidden_size"]
        self.max_tokens = _max_tokens(folder, config)
        bits = 8 if quantized else 32
        self.version = f"onnx{_LAYOUT}:{bits}:{self.max_tokens}:{_digest(folder / _WEIGHTS)}"
        graph = bert_graph(load_file(folder / _WEIGHTS), Shape.of(config), quantized=quantized)
        self._session: Any = _session(graph.SerializeToString(), threads)
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return one row a text."""
        rows = np.empty((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = self._mean(text)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows

    def count(self, text: str) -> int:
        """Return how many tokens a text has, without any bound."""
        return len(self._tokenizer.encode(text).ids)

    def _mean(self, text: str) -> Vector:
        tokens = self._tokenizer.encode(text).ids
        if len(tokens) > self.max_tokens:
            tokens = [*tokens[: self.max_tokens - 1], tokens[-1]]  # the last one ends a text
        mask = np.ones((1, len(tokens)), np.float32)
        (vectors,) = self._session.run(None, {"tokens": np.array([tokens]), "mask": mask})
        mean: Vector = vectors[0]
        return mean


def _session(graph: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A thread that spins while it waits would take a core from the gateway.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    told = folder / "sentence_bert_config.json"
    own = _json(told).get("max_seq_length") if told.is_file() else None
    positions = int(config["max_position_embeddings"])
    return min(own or positions, positions)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
