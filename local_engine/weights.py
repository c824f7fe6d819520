"""Safetensors files of a checkpoint, checked by their headers before a tensor is read.

Only safetensors is read: it holds numbers and nothing that runs.
Layout: 8 bytes little-endian header length, a JSON header, the data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from local_engine.errors import CheckpointError
from local_engine.fields import check_regular, read_json

_HEADER_BYTES = 100 << 20
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHER_BYTES = {"I64": 8, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies, and what its header claims."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Weights:
    """The tensors of a checkpoint by name; each is read and checked on demand."""

    def __init__(self, entries: Mapping[str, TensorEntry]) -> None:
        self._entries = entries

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    @property
    def files(self) -> set[Path]:
        """Return the files that hold the tensors."""
        return {entry.file for entry in self._entries.values()}

    @property
    def count(self) -> int:
        """Return how many numbers all tensors hold together."""
        return sum(math.prod(entry.shape) for entry in self._entries.values())

    def check(self, expected: Mapping[str, tuple[int, ...]], directory: Path) -> None:
        """Raise unless every expected tensor is there, in its shape and a float type."""
        for name, shape in expected.items():
            entry = self._entries.get(name)
            if entry is None:
                raise CheckpointError(
                    directory, f"tensor {name} is missing; the checkpoint is incomplete"
                )
            if entry.shape != shape:
                raise CheckpointError(
                    entry.file, f"{name}: expected shape {shape}, found {entry.shape}"
                )
            if entry.dtype not in _ITEM_BYTES:
                raise CheckpointError(
                    entry.file,
                    f"{name}: expected {', '.join(_ITEM_BYTES)}, found {entry.dtype}; "
                    "convert the checkpoint to bf16",
                )

    def entry(self, name: str) -> TensorEntry | None:
        """Return what a header says of a tensor."""
        return self._entries.get(name)

    def raw(self, name: str) -> torch.Tensor:
        """Read one tensor as it is stored."""
        entry = self._entries[name]
        try:
            with safe_open(str(entry.file), framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (OSError, SafetensorError) as exc:
            raise CheckpointError(entry.file, f"{name}: cannot be read ({exc})") from exc
        return tensor

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """Read one tensor as `dtype`, refusing values that are not finite."""
        tensor = self.raw(name).to(dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                self._entries[name].file, f"{name}: holds NaN or infinite values; download it again"
            )
        return tensor


def open_weights(directory: Path) -> Weights:
    """Index the safetensors files of a directory, one file or sharded."""
    entries: dict[str, TensorEntry] = {}
    for file in _files(directory):
        entries.update(_read_header(file))
    return Weights(entries)


def open_weights_file(file: Path) -> Weights:
    """Index one safetensors file."""
    return Weights(_read_header(file))


def _files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return _shards(index)
    single = directory / "model.safetensors"
    if single.exists():
        return [single]
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt*")):
        raise CheckpointError(
            directory,
            "holds pickled weights only, which can run code and are never loaded; "
            "convert them to safetensors",
        )
    raise CheckpointError(
        directory, "expected model.safetensors or model.safetensors.index.json, found neither"
    )


def _shards(index: Path) -> list[Path]:
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise CheckpointError(index, "weight_map: expected tensor names mapped to file names")
    names = sorted(set(mapping.values()))
    for name in names:
        if name != os.path.basename(name) or not name.endswith(".safetensors"):
            raise CheckpointError(
                index, f"weight_map: expected a .safetensors file beside the index, found {name!r}"
            )
    return [index.parent / name for name in names]


def _read_header(file: Path) -> dict[str, TensorEntry]:
    try:
        check_regular(file)
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(_HEADER_BYTES, size - 8):
                raise CheckpointError(file, "is truncated or not safetensors; download it again")
            header = json.loads(stream.read(length))
    except OSError as exc:
        raise CheckpointError(file, f"cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(file, f"its header is not JSON ({exc}); download it again") from exc
    if not isinstance(header, dict):
        raise CheckpointError(file, "expected a JSON object as header; download it again")
    data = size - 8 - length
    return {
        name: _entry(file, name, value, data)
        for name, value in header.items()
        if name != "__metadata__"
    }


def _entry(file: Path, name: str, value: Any, data: int) -> TensorEntry:
    """Check one header entry against the file's size and its own shape."""
    try:
        dtype, shape = str(value["dtype"]), tuple(value["shape"])
        start, end = value["data_offsets"]
        is_sound = all(type(n) is int and 0 <= n < 1 << 48 for n in (start, end, *shape))
    except (KeyError, TypeError, ValueError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(file, f"{name}: its header entry is malformed; download it again")
    if not start <= end <= data:
        raise CheckpointError(
            file, f"{name}: ends at byte {end} of {data}; the file is truncated, download it again"
        )
    item = _ITEM_BYTES.get(dtype) or _OTHER_BYTES.get(dtype)
    if item is not None and math.prod(shape) * item != end - start:
        raise CheckpointError(
            file, f"{name}: shape {shape} of {dtype} does not fill its {end - start} bytes"
        )
    return TensorEntry(file, shape, dtype)


def check_memory(directory: Path, nbytes: int) -> None:
    """Raise where this machine's memory cannot hold so many bytes of weights."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if nbytes > memory:
        raise CheckpointError(
            directory,
            f"its weights would take {nbytes >> 20} MiB here, and this machine has "
            f"{memory >> 20} MiB; quantize it or choose a smaller model",
        )
