"""A checkpoint opened and checked: its settings, names and tokenizer, and no weight read yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from local_engine.config import ModelConfig, parse_config
from local_engine.errors import CheckpointError
from local_engine.fields import read_json
from local_engine.formats import Layout, find_layout
from local_engine.inventory import check_tensors
from local_engine.template import ChatTemplate
from local_engine.tokenizer import Tokenizer
from local_engine.weights import Weights, open_weights


@dataclass(frozen=True, slots=True)
class Opened:
    """What a checkpoint says of itself; `settings` is the file that says it.

    `generation` holds the author's advice on sampling, as in generation_config.json.
    """

    settings: Path
    config: ModelConfig
    weights: Weights
    layout: Layout | None
    tokenizer: Tokenizer
    template: ChatTemplate | None
    end_ids: frozenset[int]
    generation: Mapping[str, Any] = field(default_factory=dict)


def open_checkpoint(path: Path, *, is_long: bool = False) -> Opened:
    """Open a directory or a .gguf file; raises `CheckpointError`."""
    return _open_gguf(path, is_long) if path.suffix == ".gguf" else _open_directory(path, is_long)


def _open_directory(directory: Path, is_long: bool) -> Opened:
    path = directory / "config.json"
    values = read_json(path)
    config = parse_config(path, values, is_long=is_long)
    layout = find_layout(path, values)
    weights = open_weights(directory)
    check_tensors(config, weights, layout, directory)
    tokenizer = _checked(Tokenizer.load(directory), config, directory / "tokenizer.json")
    generation = _read_optional(directory / "generation_config.json")
    return Opened(
        path,
        config,
        weights,
        layout,
        tokenizer,
        _read_template(directory),
        _end_ids(directory, generation, tokenizer),
        generation,
    )


def _open_gguf(path: Path, is_long: bool) -> Opened:
    from local_engine.formats.gguf import GgufLayout, open_gguf
    from local_engine.formats.gguf_tokenizer import end_ids, special_tokens, tokenizer_json

    file, config, weights = open_gguf(path, is_long=is_long)
    layout = GgufLayout()
    check_tensors(config, weights, layout, path)
    beside = path.with_name("tokenizer.json")
    if beside.exists():
        tokenizer = Tokenizer.load(path.parent)
    else:
        tokenizer = Tokenizer.parse(path, tokenizer_json(path, file.metadata))
    source = file.metadata.get("tokenizer.chat_template")
    return Opened(
        path,
        config,
        weights,
        layout,
        _checked(tokenizer, config, beside if beside.exists() else path),
        _compiled(path, source, special_tokens(file.metadata)),
        end_ids(path, file.metadata),
    )


def _checked(tokenizer: Tokenizer, config: ModelConfig, path: Path) -> Tokenizer:
    if tokenizer.size > config.vocab:
        raise CheckpointError(
            path,
            f"has {tokenizer.size} tokens, but the model {config.vocab}; they are not of one kind",
        )
    return tokenizer


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
    where = path if path.exists() else directory / "tokenizer_config.json"
    return _compiled(where, source, _special_tokens(settings))


def _compiled(where: Path, source: object, special: Mapping[str, str]) -> ChatTemplate | None:
    if source is None:
        return None
    if not isinstance(source, str):
        raise CheckpointError(where, "chat_template: expected text")
    try:
        return ChatTemplate(source, special)
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
