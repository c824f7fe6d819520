"""A Hugging Face checkpoint directory, turned into a decoder with its tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import torch

from local_engine.assembly import build_decoder
from local_engine.config import ModelConfig, parse_config
from local_engine.errors import CheckpointError
from local_engine.fields import read_json
from local_engine.formats import find_layout
from local_engine.inventory import check_fits, check_tensors
from local_engine.model import Decoder
from local_engine.quant import Quantization
from local_engine.quant_store import QuantStore, cache_key
from local_engine.source import PlainSource, StoredSource
from local_engine.template import ChatTemplate
from local_engine.tokenizer import Tokenizer
from local_engine.types import Sampling
from local_engine.weights import open_weights


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


def load_model(directory: Path, options: LoadOptions | None = None) -> LoadedModel:
    """Load a checkpoint, checking sizes and shapes before allocating.

    Raises `CheckpointError`, naming the file and what to change.
    """
    options = options or LoadOptions()
    started = time.perf_counter()
    path = directory / "config.json"
    values = read_json(path)
    config = parse_config(path, values, is_long=options.is_long)
    layout = find_layout(path, values)
    weights = open_weights(directory)
    check_tensors(config, weights, layout, directory)
    device = options.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = options.dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    check_fits(config, weights, layout, options.quantization, dtype)
    tokenizer = Tokenizer.load(directory)
    if tokenizer.size > config.vocab:
        raise CheckpointError(
            directory / "tokenizer.json",
            f"has {tokenizer.size} tokens, but the model {config.vocab}; they are not of one kind",
        )
    template = _read_template(directory)
    generation = _read_optional(directory / "generation_config.json")

    scheme = options.quantization
    if layout is not None:
        source: PlainSource = StoredSource(weights, dtype, device, scheme, layout)
        decoder = build_decoder(config, source)
    else:
        store = _open_store(options, [path, *weights.files])
        decoder = build_decoder(config, PlainSource(weights, dtype, device, scheme, store))
        if store is not None:
            store.save()
    return LoadedModel(
        decoder,
        tokenizer,
        template,
        _end_ids(directory, generation, tokenizer),
        _default_sampling(generation),
        _default_limit(generation),
        time.perf_counter() - started,
    )


def _open_store(options: LoadOptions, files: Iterable[Path]) -> QuantStore | None:
    """Open what was quantized before, where that is worth more than quantizing again."""
    if options.kept_in is None or options.quantization in ("none", "as-stored"):
        return None
    return QuantStore(options.kept_in, cache_key(files, options.quantization))


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _read_template(directory: Path) -> ChatTemplate | None:
    path = directory / "chat_template.jinja"
    settings = _read_optional(directory / "tokenizer_config.json")
    source = settings.get("chat_template")
    if path.exists():
        source = path.read_text(encoding="utf-8", errors="replace")
    if isinstance(source, list):
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    if source is None:
        return None
    where = path if path.exists() else directory / "tokenizer_config.json"
    if not isinstance(source, str):
        raise CheckpointError(where, "chat_template: expected text")
    try:
        return ChatTemplate(source, _special_tokens(settings))
    except (jinja2.TemplateError, ValueError) as exc:
        raise CheckpointError(where, f"chat_template: {exc}") from exc


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what templates know as `bos_token` and its like."""
    found = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = settings.get(name)
        content = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(content, str):
            found[name] = content
    return found


def _end_ids(
    directory: Path, generation: Mapping[str, Any], tokenizer: Tokenizer
) -> frozenset[int]:
    """Collect the ids that end an answer, from the most to the least specific file."""
    for values in (generation, read_json(directory / "config.json")):
        found = values.get("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        if found is not None:
            if not all(type(i) is int and i >= 0 for i in ids):
                raise CheckpointError(directory, f"eos_token_id: expected token ids, found {found}")
            return frozenset(ids)
    token = _special_tokens(_read_optional(directory / "tokenizer_config.json")).get("eos_token")
    found_id = tokenizer.token_id(token) if token else None
    return frozenset() if found_id is None else frozenset({found_id})


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
