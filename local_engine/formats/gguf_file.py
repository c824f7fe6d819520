"""The container of GGUF: metadata and tensors, checked against the file before any is read.

"GGUF", u32 version, u64 tensors, u64 metadata entries; the entries; name, dimensions
(innermost first), type and offset of each tensor; then the data, aligned.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from local_engine.errors import CheckpointError

_MOST_TENSORS = 1 << 18
_MOST_ENTRIES = 1 << 16
_MOST_ELEMENTS = 1 << 23
_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
# Name, numbers in a block, bytes of a block.
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies; `shape` is outermost first."""

    shape: tuple[int, ...]
    type: str
    start: int
    nbytes: int


class GgufFile:
    """One mapped file: its metadata, and its tensors as bytes."""

    def __init__(self, path: Path) -> None:
        """Read everything but the data; raises `CheckpointError`."""
        self.path = path
        try:
            with path.open("rb") as file:
                # Copy on write, for torch takes no memory that it may not write to.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as exc:  # ValueError: an empty file cannot be mapped
            raise CheckpointError(path, f"cannot be read ({exc})") from exc
        cursor = _Cursor(path, self._map)
        try:
            self.metadata, self.tensors = _read_head(cursor)
        except UnicodeDecodeError as exc:
            raise cursor.broken("holds a name that is not UTF-8") from exc

    def data(self, name: str) -> Tensor:
        """Return the bytes of a tensor, uint8 `[nbytes]`, still in the file."""
        entry = self.tensors[name]
        return torch.frombuffer(
            self._map, dtype=torch.uint8, offset=entry.start, count=entry.nbytes
        )


class _Cursor:
    """Reads forward and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.size = len(data)
        self.at = 0
        self._data = data

    def broken(self, problem: str) -> CheckpointError:
        return CheckpointError(self.path, f"{problem}; it is damaged or no GGUF, download it again")

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise self.broken(f"ends at byte {self.size}, in the middle of its header")
        self.at += count
        return self._data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, most: int, what: str) -> int:
        found: int = self.number("Q")
        if found > most:
            raise self.broken(f"claims {found} {what}, more than {most}")
        return found

    def text(self) -> str:
        return self.take(self.count(16 << 20, "bytes in one string")).decode()

    def value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise self.broken(f"holds a value of unknown kind {kind}")
        inner, length = self.number("I"), self.count(_MOST_ELEMENTS, "values in one array")
        if inner == _STRING:
            return [self.text() for _ in range(length)]
        if inner not in _NUMBERS:
            raise self.broken(f"holds an array of kind {inner}")
        code = f"<{length}{_NUMBERS[inner]}"
        return list(struct.unpack(code, self.take(struct.calcsize(code))))


def _read_head(cursor: _Cursor) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
    if cursor.take(4) != b"GGUF":
        raise cursor.broken("does not begin with GGUF")
    version = cursor.number("I")
    if version not in (2, 3):
        raise CheckpointError(cursor.path, f"expected GGUF version 2 or 3, found {version}")
    tensors = cursor.count(_MOST_TENSORS, "tensors")
    entries = cursor.count(_MOST_ENTRIES, "metadata entries")
    metadata = {}
    for _ in range(entries):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    infos = [_read_info(cursor) for _ in range(tensors)]
    return metadata, _placed(cursor, metadata.get("general.alignment", 32), infos)


def _read_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise cursor.broken(f"{name}: has {dimensions} dimensions")
    shape = tuple(cursor.count(1 << 32, "numbers in a row") for _ in range(dimensions))
    kind = cursor.number("I")
    return name, shape[::-1], kind, cursor.number("Q")


def _placed(
    cursor: _Cursor, alignment: object, infos: list[tuple[str, tuple[int, ...], int, int]]
) -> dict[str, GgufTensor]:
    """Check where each tensor lies: within the file, aligned, and over no other."""
    if type(alignment) is not int or not 1 <= alignment <= 1 << 16:
        raise cursor.broken(f"general.alignment: found {alignment!r}")
    begin = -(-cursor.at // alignment) * alignment
    placed: dict[str, GgufTensor] = {}
    end_of_last = 0
    for name, shape, kind, offset in sorted(infos, key=lambda info: info[3]):
        if kind not in TYPES:
            known = ", ".join(t[0] for t in TYPES.values())
            raise CheckpointError(
                cursor.path, f"{name}: expected one of {known}, found type {kind}"
            )
        label, block, size = TYPES[kind]
        if name in placed or not all(shape) or shape[-1] % block or offset % alignment:
            raise cursor.broken(f"{name}: shape {shape} of {label} at {offset} cannot be")
        nbytes = math.prod(shape) // block * size
        if offset < end_of_last or begin + offset + nbytes > cursor.size:
            raise cursor.broken(f"{name}: lies over another tensor or beyond the end of the file")
        end_of_last = offset + nbytes
        placed[name] = GgufTensor(shape, label, begin + offset, nbytes)
    return placed
