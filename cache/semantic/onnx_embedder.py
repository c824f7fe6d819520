"""A BERT sentence encoder on ONNX Runtime: on few threads, or on a GPU."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from cache.semantic.embedder import EmbedderError, Vector
from cache.semantic.onnx_graph import Shape, bert_graph

_WEIGHTS = "model.safetensors"
_LAYOUT = 1  # raised when the graph changes, since vectors of two layouts are not comparable
_ERRORS_ONLY = 3
_CUDA = "CUDAExecutionProvider"
_ON_CPU = ("CPUExecutionProvider",)
_ON_GPU = (_CUDA, *_ON_CPU)
_AT_ONCE = 32  # texts, on a GPU
_log = logging.getLogger(__name__)


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


def onnx_embedder(folder: Path, *, device: str | None = None, threads: int = 1) -> OnnxEmbedder:
    """Return an encoder where it runs best: on a GPU with its weights as they are, else of 8 bits.

    What is to run on a GPU, and cannot, raises EmbedderError; with no device named it runs here.
    """
    if not wants_gpu(device, onnxruntime.get_available_providers()):
        return OnnxEmbedder(folder, threads=threads)
    try:
        return OnnxEmbedder(folder, quantized=False, providers=_ON_GPU, threads=threads)
    except EmbedderError:
        if device is not None:
            raise
        _log.warning("the embedder runs on the processor: ONNX Runtime cannot use its GPU")
        return OnnxEmbedder(folder, threads=threads)


def wants_gpu(device: str | None, providers: Sequence[str]) -> bool:
    """Return whether to try a GPU, given what ONNX Runtime can run on. Raises EmbedderError."""
    has_gpu = _CUDA in providers
    if device == "cuda" and not has_gpu:
        raise EmbedderError(
            f"cuda: expected an ONNX Runtime with {_CUDA}, found {', '.join(providers)}; install "
            "onnxruntime-gpu in place of onnxruntime, or leave `cuda:` away to take the processor"
        )
    return has_gpu and device != "cpu"


class OnnxEmbedder:
    """Runs texts one at a time on a processor, where padding costs; together on a GPU."""

    def __init__(
        self,
        folder: Path,
        *,
        quantized: bool = True,
        providers: Sequence[str] = _ON_CPU,
        threads: int = 1,
    ) -> None:
        config = _json(folder / "config.json")
        self.width: int = config["hidden_size"]
        self.max_tokens = _max_tokens(folder, config)
        bits = 8 if quantized else 32
        self.version = f"onnx{_LAYOUT}:{bits}:{self.max_tokens}:{_digest(folder / _WEIGHTS)}"
        graph = bert_graph(load_file(folder / _WEIGHTS), Shape.of(config), quantized=quantized)
        self._session: Any = _session(graph.SerializeToString(), providers, threads)
        self._at_once = 1 if providers == _ON_CPU else _AT_ONCE
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return one row a text."""
        rows = np.empty((len(texts), self.width), np.float32)
        for first in range(0, len(texts), self._at_once):
            some = slice(first, first + self._at_once)
            rows[some] = self._means([self._tokens(text) for text in texts[some]])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows

    def count(self, text: str) -> int:
        """Return how many tokens a text has, without any bound."""
        return len(self._tokenizer.encode(text).ids)

    def _tokens(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text).ids
        if len(tokens) > self.max_tokens:
            tokens = [*tokens[: self.max_tokens - 1], tokens[-1]]  # the last one ends a text
        return tokens

    def _means(self, texts: Sequence[Sequence[int]]) -> Vector:
        longest = max(map(len, texts))
        tokens = np.zeros((len(texts), longest), np.int64)
        mask = np.zeros((len(texts), longest), np.float32)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = text
            mask[row, : len(text)] = 1.0
        (means,) = self._session.run(None, {"tokens": tokens, "mask": mask})
        found: Vector = means
        return found


def _session(graph: bytes, providers: Sequence[str], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A thread that spins while it waits would take a core from the gateway.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=list(providers))
    except RuntimeError as exc:
        raise EmbedderError(f"ONNX Runtime cannot run the embedder: {exc}") from exc
    if session.get_providers()[0] != providers[0]:  # it goes on without, and says so in its log
        raise EmbedderError(f"expected {providers[0]} to run the embedder, found it out of order")
    return session


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
