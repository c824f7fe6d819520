"""The tokenizer in a GGUF file's metadata, written as a tokenizer.json.

Byte-level BPE (`gpt2`) brings its merges; SentencePiece's (`llama`) brings scores, of
which the merges follow: two pieces that make a third, the best-scored first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_engine.errors import CheckpointError

_CONTROL, _USER_DEFINED, _UNKNOWN = 3, 4, 2
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is split before merging, by the name that the file gives; None is GPT-2's way.
_SPLITS = {
    "gpt-2": None,
    "default": None,
    "qwen2": _WORDS % "",
    "llama-bpe": _WORDS % "{1,3}",
    "llama3": _WORDS % "{1,3}",
}


def tokenizer_json(path: Path, metadata: Mapping[str, Any]) -> str:
    """Return a tokenizer.json; raises `CheckpointError` where the file's kind is not known."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens = _texts(path, metadata, "tokenizer.ggml.tokens")
    if kind == "gpt2":
        body = _byte_level(path, metadata, tokens)
    elif kind == "llama":
        body = _sentencepiece(path, metadata, tokens)
    else:
        raise CheckpointError(
            path,
            f"tokenizer.ggml.model: expected gpt2 or llama, found {kind!r}; put the model's "
            "tokenizer.json beside the file",
        )
    added = _added(metadata, tokens)
    return json.dumps({"version": "1.0", "added_tokens": added, **body}, ensure_ascii=False)


def special_tokens(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what templates know as `bos_token` and its like."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    found = {}
    for name, short in names.items():
        index = metadata.get(f"tokenizer.ggml.{short}_token_id")
        if isinstance(tokens, list) and type(index) is int and 0 <= index < len(tokens):
            found[name] = str(tokens[index])
    return found


def end_ids(path: Path, metadata: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids that end an answer or a turn."""
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot")]
    found = [metadata[key] for key in keys if metadata.get(key) is not None]
    if not all(type(i) is int and i >= 0 for i in found):
        raise CheckpointError(path, f"{keys[0]}: expected token ids, found {found}")
    return frozenset(found)


def _texts(path: Path, metadata: Mapping[str, Any], key: str) -> list[str]:
    found = metadata.get(key)
    if not isinstance(found, list) or not all(isinstance(t, str) for t in found):
        raise CheckpointError(
            path, f"{key}: expected texts; put the model's tokenizer.json beside the file"
        )
    return found


def _added(metadata: Mapping[str, Any], tokens: list[str]) -> list[dict[str, Any]]:
    kinds = metadata.get("tokenizer.ggml.token_type") or []
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": i, "content": token, "special": kind != _USER_DEFINED, **plain}
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind in (_CONTROL, _USER_DEFINED, _UNKNOWN)
    ]


def _begin(metadata: Mapping[str, Any], tokens: list[str], *, default: bool) -> Any:
    """Return the step that puts the begin token before a text, if the file wants it."""
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    wants = metadata.get("tokenizer.ggml.add_bos_token", default)
    if not wants or type(bos) is not int or not 0 <= bos < len(tokens):
        return None
    name = tokens[bos]
    first: dict[str, Any] = {"SpecialToken": {"id": name, "type_id": 0}}
    text: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    other: dict[str, Any] = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, other],
        "special_tokens": {name: {"id": name, "ids": [bos], "tokens": [name]}},
    }


def _bpe(tokens: list[str], merges: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": merges,
        **changes,
    }


def _byte_level(path: Path, metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    name = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in _SPLITS:
        raise CheckpointError(
            path,
            f"tokenizer.ggml.pre: expected one of {', '.join(_SPLITS)}, found {name!r}; put the "
            "model's tokenizer.json beside the file",
        )
    split = _SPLITS[name]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps: list[dict[str, Any]] = [level | {"use_regex": split is None}]
    if split is not None:
        pattern = {"pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
        steps.insert(0, {"type": "Split", **pattern})
    merges = _texts(path, metadata, "tokenizer.ggml.merges")
    is_llama = name in ("llama-bpe", "llama3")
    return {
        "normalizer": {"type": "NFC"} if name == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": _begin(metadata, tokens, default=is_llama),
        "decoder": level | {"use_regex": True},
        "model": _bpe(tokens, merges, ignore_merges=is_llama),
    }


def _sentencepiece(path: Path, metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CheckpointError(path, f"tokenizer.ggml.scores: expected {len(tokens)} numbers")
    ids = {token: i for i, token in enumerate(tokens)}
    found = []
    for i, token in enumerate(tokens):
        for cut in range(1, min(len(token), 64)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[i], left, right))
    merges = [[tokens[left], tokens[right]] for _, left, right in sorted(found)]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    has_unknown = type(unknown) is int and 0 <= unknown < len(tokens)
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps: list[dict[str, Any]] = [space]
    wants_space = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    if wants_space:
        steps.insert(0, {"type": "Prepend", "prepend": "▁"})
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if wants_space:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": _begin(metadata, tokens, default=True),
        "decoder": {"type": "Sequence", "decoders": back},
        "model": _bpe(
            tokens,
            merges,
            byte_fallback=True,
            fuse_unk=True,
            unk_token=tokens[unknown] if has_unknown else None,
        ),
    }
