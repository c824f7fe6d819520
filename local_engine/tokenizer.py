"""Text to token ids and back, token by token."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Tokenizer

from local_engine.errors import CheckpointError, InvalidRequest
from local_engine.fields import read_json

_MOST_TOKENS = 1 << 22
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """A tokenizer.json, with the bytes of every token at hand."""

    def __init__(self, core: _Tokenizer, data: tuple[bytes, ...], *, strips_space: bool) -> None:
        self._core = core
        self.data = data
        self.strips_space = strips_space
        added = core.get_added_tokens_decoder().values()
        self._special = tuple(t.content for t in added if t.special and len(t.content) > 1)

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read tokenizer.json; raises `CheckpointError`."""
        path = directory / "tokenizer.json"
        read_json(path)  # names a file that is missing, too large or no JSON
        return cls.parse(path, path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, path: Path, text: str) -> Tokenizer:
        """Read the text of a tokenizer.json; `path` is named in errors."""
        try:
            decoder = json.loads(text).get("decoder")
            core = _Tokenizer.from_str(text)
        except Exception as exc:
            raise CheckpointError(path, f"is not a usable tokenizer ({exc})") from exc
        # Padding and truncation are the training script's settings, not the model's.
        core.no_padding()
        core.no_truncation()
        steps = _decoder_steps(decoder)
        style = _style(path, steps)
        highest = max(core.get_vocab(with_added_tokens=True).values(), default=0)
        if highest >= _MOST_TOKENS:  # what its bytes would take is for a hostile file to say
            raise CheckpointError(
                path, f"expected token ids below {_MOST_TOKENS}, found {highest}; download it again"
            )
        data = tuple(_bytes_of_tokens(core, style))
        return cls(core, data, strips_space=style == "spaced" and "Strip" in steps)

    @property
    def size(self) -> int:
        """Return one more than the highest token id."""
        return len(self.data)

    def encode(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        """Tokenize, optionally with the begin token that the tokenizer would add."""
        try:
            return tuple(self._core.encode(text, add_special_tokens=add_special).ids)
        except (UnicodeEncodeError, TypeError) as exc:  # the library's word for a surrogate
            raise InvalidRequest(
                "The text holds a lone surrogate, which is no character; send valid Unicode."
            ) from exc

    def disarm(self, text: str, mark: str) -> str:
        """Put `mark` inside every special token's name that stands in a client's text.

        Splitting the finished prompt at the mark and encoding the pieces gives the letters
        of the name, never the token: nobody can close their own turn and open another's.
        """
        for name in self._special:
            if name in text:
                text = text.replace(name, f"{name[0]}{mark}{name[1:]}")
        return text

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its text, or None."""
        found: int | None = self._core.token_to_id(token)
        return found

    def bytes_of(self, token: int) -> bytes:
        """Return a token's own bytes; empty for special and unknown ones."""
        return self.data[token] if 0 <= token < len(self.data) else b""

    def label(self, token: int) -> bytes:
        """Return a token's bytes, or the name of a special one."""
        return self.bytes_of(token) or (self._core.id_to_token(token) or "").encode()


@dataclass(frozen=True, slots=True)
class Released:
    """Text that may leave, and whether a stop string ended it."""

    text: str
    is_stopped: bool = False


class TextStream:
    """Turn one sequence's tokens into text as it becomes final.

    Held back: the bytes of an incomplete character, and any ending that may be the
    beginning of a stop string.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str], shown: frozenset[int] = frozenset()
    ) -> None:
        """Begin; `shown` are special tokens whose names belong to the text."""
        self._tokenizer = tokenizer
        self._shown = shown
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self._strips_space = tokenizer.strips_space

    def push(self, token: int) -> Released:
        """Add one token and return what became final."""
        text = self._utf8.decode(self.data_of(token))
        if self._strips_space and text:
            text = text.removeprefix(" ")
            self._strips_space = False
        return self._scan(text)

    def data_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to this text."""
        if token in self._shown:
            return self._tokenizer.label(token)
        return self._tokenizer.bytes_of(token)

    def finish(self) -> Released:
        """Return what was held back, at the end of the sequence."""
        released = self._scan(self._utf8.decode(b"", final=True))
        held, self._held = self._held, ""
        return released if released.is_stopped else Released(released.text + held)

    def _scan(self, text: str) -> Released:
        if not self._stops:
            return Released(text)
        text = self._held + text
        cut = min((at for s in self._stops if (at := text.find(s)) >= 0), default=-1)
        if cut >= 0:
            self._held = ""
            return Released(text[:cut], is_stopped=True)
        kept = self._unsafe_length(text)
        self._held = text[len(text) - kept :]
        return Released(text[: len(text) - kept])

    def _unsafe_length(self, text: str) -> int:
        """Return the length of the longest ending that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(s.startswith(text[-length:]) for s in self._stops):
                return length
        return 0


def _decoder_steps(decoder: Any) -> set[str]:
    """Name the steps of a decoder, flattened."""
    if not isinstance(decoder, dict):
        return set()
    names = {str(decoder.get("type"))}
    inner = decoder.get("decoders")
    return names.union(*map(_decoder_steps, inner)) if isinstance(inner, list) else names


def _style(path: Path, steps: set[str]) -> str:
    if "ByteLevel" in steps:
        return "bytes"
    if steps & {"ByteFallback", "Metaspace"}:
        return "spaced"
    found = ", ".join(sorted(steps)) or "none"
    raise CheckpointError(path, f"decoder: expected byte-level or byte-fallback BPE, found {found}")


def _bytes_of_tokens(core: _Tokenizer, style: str) -> list[bytes]:
    added = core.get_added_tokens_decoder()
    vocab: dict[str, int] = core.get_vocab(with_added_tokens=True)
    data = [b""] * (max(vocab.values(), default=-1) + 1)
    alphabet = _byte_alphabet()
    for token, index in vocab.items():
        if index in added:
            data[index] = b"" if added[index].special else token.encode()
        elif style == "bytes":
            data[index] = _from_alphabet(token, alphabet)
        else:
            data[index] = _from_spaced(token)
    return data


def _from_alphabet(token: str, alphabet: dict[str, int]) -> bytes:
    if all(char in alphabet for char in token):
        return bytes(alphabet[char] for char in token)
    return token.encode()


def _from_spaced(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Map the printable stand-ins of byte-level BPE back to bytes (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    stand_ins = {chr(256 + n): byte for n, byte in enumerate(others)}
    return {chr(b): b for b in plain} | stand_ins
