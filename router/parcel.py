"""A bundle as one piece, to travel to machines that have not trained it.

zlib over msgpack: a map from each file's name to its bytes. What arrives is written only
where it is the bundle that was asked for, to the byte: its id stands for all its files.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zlib
from pathlib import Path

import msgspec

from router.bundle import MOST_BYTES, BundleError, identity_at, load_bundle, put_in_place

_OURS = re.compile(r"manifest\.json|values\.json|arrays\.safetensors|texts/[0-9]{1,6}\.txt")


def packed(path: Path, identity: str) -> bytes:
    """Return a bundle in one piece. Raises BundleError where it is not the one of that id."""
    load_bundle(path, pinned=identity)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    content = {each.relative_to(path).as_posix(): each.read_bytes() for each in files}
    return zlib.compress(msgspec.msgpack.encode(content))


def unpacked(content: bytes, path: Path, identity: str) -> None:
    """Write a bundle that has travelled, all or nothing. Raises BundleError for another one."""
    files = _files(content, identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        (made / "texts").mkdir()
        for name, data in files.items():
            (made / name).write_bytes(data)
        load_bundle(made, pinned=identity)
        _put(made, path, identity)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _put(made: Path, path: Path, identity: str) -> None:
    try:
        put_in_place(made, path)
    except OSError:
        # Another process of this machine may have been first.
        if identity_at(path) != identity:
            raise


def _files(content: bytes, identity: str) -> dict[str, bytes]:
    where = f"bundle {identity}"
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(content, MOST_BYTES)
        if not unzip.eof:
            raise BundleError(f"{where}: is cut off, or larger than {MOST_BYTES} bytes")
        files = msgspec.msgpack.decode(data, type=dict[str, bytes])
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BundleError(f"{where}: what was sent of it cannot be read: {exc}") from exc
    for name in files:
        if _OURS.fullmatch(name) is None:
            raise BundleError(f"{where}: expected a bundle's files alone, found {name!r:.60}")
    return files
