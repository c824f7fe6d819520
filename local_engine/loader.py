"""A checkpoint, turned into a decoder with its tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from local_engine.assembly import build_decoder
from local_engine.config import ModelConfig
from local_engine.inventory import check_fits
from local_engine.model import Decoder
from local_engine.opening import Opened, open_checkpoint
from local_engine.quant import Quantization
from local_engine.quant_store import QuantStore, cache_key
from local_engine.source import PlainSource, StoredSource
from local_engine.template import ChatTemplate
from local_engine.tokenizer import Tokenizer
from local_engine.types import Sampling


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A decoder, ready, with everything its requests need.

    `max_tokens` is the author's advice for requests that name no limit.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    template: ChatTemplate | None
    end_ids: frozenset[int]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    load_s: float = 0.0

    @property
    def config(self) -> ModelConfig:
        """Return the decoder's shape."""
        return self.decoder.config


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to hold the weights; `dtype` and `device` None take what suits the machine.

    `is_long` serves the stretched context of models that have two sets of rotary
    frequencies, at some cost in quality for short prompts. Quantized weights are kept in
    `kept_in` and taken from there the next time.
    """

    quantization: Quantization = "none"
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    is_long: bool = False
    kept_in: Path | None = None


def load_model(path: Path, options: LoadOptions | None = None) -> LoadedModel:
    """Load a checkpoint directory or a .gguf file, checking sizes and shapes before allocating.

    Raises `CheckpointError`, naming the file and what to change.
    """
    options = options or LoadOptions()
    started = time.perf_counter()
    opened = open_checkpoint(path, is_long=options.is_long)
    device = options.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = options.dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    check_fits(opened.config, opened.weights, opened.layout, options.quantization, dtype)
    return LoadedModel(
        _build(opened, options, dtype, device),
        opened.tokenizer,
        opened.template,
        opened.end_ids,
        _default_sampling(opened.generation),
        _default_limit(opened.generation),
        time.perf_counter() - started,
    )


def _build(
    opened: Opened, options: LoadOptions, dtype: torch.dtype, device: torch.device
) -> Decoder:
    weights, scheme = opened.weights, options.quantization
    if opened.layout is not None:
        stored = StoredSource(weights, dtype, device, scheme, opened.layout)
        return build_decoder(opened.config, stored)
    store = _open_store(options, [opened.settings, *weights.files])
    decoder = build_decoder(opened.config, PlainSource(weights, dtype, device, scheme, store))
    if store is not None:
        store.save()
    return decoder


def _open_store(options: LoadOptions, files: Iterable[Path]) -> QuantStore | None:
    """Open what was quantized before, where that is worth more than quantizing again."""
    if options.kept_in is None or options.quantization in ("none", "as-stored"):
        return None
    return QuantStore(options.kept_in, cache_key(files, options.quantization))


def _default_limit(generation: Mapping[str, Any]) -> int | None:
    value = generation.get("max_new_tokens")
    return value if type(value) is int and value > 0 else None


def _default_sampling(generation: Mapping[str, Any]) -> Sampling:
    """Read the author's sampling advice; where there is none, OpenAI's defaults."""
    if generation.get("do_sample") is False:
        return Sampling(temperature=0.0)
    bounds = {
        "temperature": (0.0, 2.0),
        "top_p": (1e-6, 1.0),
        "top_k": (0, 1 << 20),
        "min_p": (0.0, 1.0),
        "repetition_penalty": (1e-3, 10.0),
    }
    advice: dict[str, Any] = {
        key: type(low)(generation[key])
        for key, (low, high) in bounds.items()
        if type(generation.get(key)) in (int, float) and low <= generation[key] <= high
    }
    return Sampling(**advice)
