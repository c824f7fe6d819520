"""Quantized weights kept on disk, so that a checkpoint is quantized once.

One safetensors file for each checkpoint and scheme, named KEY-CHECKSUM: the key is a
digest of the checkpoint's files and the scheme, the checksum one of the file itself. A
file that does not match its name is thrown away and made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from local_engine.quant import Packed, PackedKind, Quantization

log = logging.getLogger(__name__)

# To be raised whenever a scheme computes other numbers.
_VERSION = 1
_MOST_FILES = 8
_KINDS: tuple[PackedKind, ...] = ("int8", "int4", "nf4", "fp8")


def cache_directory() -> Path:
    """Return where quantized weights are kept by default."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "frugal-gateway" / "quantized"


def cache_key(files: Iterable[Path], scheme: Quantization) -> str:
    """Return a digest of the content of files and of what is made of them."""
    digest = hashlib.sha256(f"{_VERSION} {scheme}".encode())
    for file in sorted(files):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


class QuantStore:
    """The quantized weights of one checkpoint in one scheme, by name.

    What cannot be read or written is made again and not kept: a full disk costs time.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        self._found = _sound_file(directory, key)
        self._made: dict[str, Packed] = {}

    @property
    def is_warm(self) -> bool:
        """Tell whether a sound file was found."""
        return self._found is not None

    def find(self, name: str) -> Packed | None:
        """Return a weight that was kept."""
        if self._found is None:
            return None
        try:
            with safe_open(str(self._found), framework="pt") as file:
                return _read(file, name)
        except (OSError, SafetensorError) as exc:
            log.warning("quantized weights in %s cannot be read (%s)", self._found, exc)
        return None

    def keep(self, name: str, packed: Packed) -> None:
        """Remember a weight for `save`."""
        self._made[name] = packed

    def save(self) -> None:
        """Write what was made, replacing what was there; oldest files beyond a few go."""
        if not self._made:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write()
            self._prune()
        except (OSError, SafetensorError) as exc:
            log.warning("quantized weights could not be kept in %s (%s)", self._directory, exc)
        self._made = {}

    def _write(self) -> None:
        tensors: dict[str, Tensor] = {}
        for name, packed in self._made.items():
            tensors[f"{name}/{packed.kind}"] = packed.values.cpu().contiguous()
            tensors[f"{name}/scale"] = packed.scale.cpu().contiguous()
            if packed.offset is not None:
                tensors[f"{name}/offset"] = packed.offset.cpu().contiguous()
        handle, path = tempfile.mkstemp(dir=self._directory, suffix=".partial")
        os.close(handle)
        try:
            save_file(tensors, path)
            final = self._directory / f"{self._key}-{_checksum(Path(path))}.safetensors"
            os.replace(path, final)
        finally:
            Path(path).unlink(missing_ok=True)

    def _prune(self) -> None:
        files = sorted(self._directory.glob("*.safetensors"), key=lambda f: f.stat().st_mtime)
        for file in files[:-_MOST_FILES]:
            file.unlink(missing_ok=True)


def _read(file: Any, name: str) -> Packed | None:
    names = set(file.keys())
    for kind in _KINDS:
        if f"{name}/{kind}" in names:
            offset = f"{name}/offset"
            return Packed(
                kind,
                file.get_tensor(f"{name}/{kind}"),
                file.get_tensor(f"{name}/scale"),
                file.get_tensor(offset) if offset in names else None,
            )
    return None


def _sound_file(directory: Path, key: str) -> Path | None:
    for file in directory.glob(f"{key}-*.safetensors"):
        try:
            if file.stem == f"{key}-{_checksum(file)}":
                os.utime(file)  # the least recently used go first
                return file
            log.warning("quantized weights in %s are damaged; they are made again", file)
            file.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("quantized weights in %s cannot be read (%s)", file, exc)
    return None


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
