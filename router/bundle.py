"""What was learnt, as a directory: plain values, arrays and texts, with their checksums.

    manifest.json         what this is, of which version, and every file's size and SHA-256
    values.json           the plain values of every part
    arrays.safetensors    the arrays of every part
    texts/NAME.txt        the texts of every part (trees as LightGBM prints them)

Nothing in it can run. A bundle of another kind or format, one with a file too many or
too few, and one whose bytes are not those that were written is refused. Checksums show
damage; against somebody who writes new ones, pin the bundle's id in the policy:
`bundle: bundles/auto#sha256:…`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from router.state import State
from router.types import RouterError

KIND = "frugal-router-bundle"
FORMAT = 1
MOST_BYTES = 512 * 1024 * 1024
"""The largest bundle that is read."""
_MOST_MANIFEST = 4 * 1024 * 1024
_MANIFEST = "manifest.json"
_VALUES = "values.json"
_ARRAYS = "arrays.safetensors"
_SEPARATOR = "/"


class BundleError(RouterError):
    """A bundle that cannot be used; says which file, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory. `about` is shown to people and checked by nobody but its reader."""

    about: Mapping[str, Any]
    state: State
    id: str = ""


def save_bundle(path: Path, about: Mapping[str, Any], state: State) -> str:
    """Write a bundle in the place of what is there, all or nothing; return its id.

    Raises BundleError when the place holds something that is no bundle.
    """
    path = Path(os.path.abspath(path))
    if path.exists() and not (path.is_dir() and _is_ours(path)):
        raise BundleError(f"{path}: exists and is no bundle; name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        written = _written(made, about, state)
        put_in_place(made, path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return written


def load_bundle(path: Path, *, pinned: str | None = None) -> Bundle:
    """Read a bundle. `pinned` is the id it must have.

    Raises BundleError for one that is missing, foreign, damaged, or not the pinned one.
    """
    manifest = _manifest(path)
    known = _identity(manifest)
    if manifest.get("id") != known:
        raise BundleError(f"{path / _MANIFEST}: was changed after it was written")
    if pinned is not None and pinned != known:
        raise BundleError(f"{path}: its id is {known}, the policy pins {pinned}")
    files = _checked_files(path, manifest)
    return Bundle(manifest["about"], _state(path, files), known)


def about_bundle(path: Path) -> Mapping[str, Any]:
    """Return what a bundle says of itself, without reading the rest. Raises BundleError."""
    manifest = _manifest(path)
    if manifest.get("id") != _identity(manifest):
        raise BundleError(f"{path / _MANIFEST}: was changed after it was written")
    about: Mapping[str, Any] = manifest["about"]
    return about


def identity_at(path: Path) -> str:
    """Return the id of a bundle from its manifest alone. Raises BundleError."""
    return _identity(_manifest(path))


def _is_ours(path: Path) -> bool:
    try:
        _manifest(path)
    except BundleError:
        return False
    return True


def put_in_place(made: Path, path: Path) -> None:
    """Move a finished folder into place; what stood there is gone only afterwards."""
    if not path.exists():
        made.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    path.rename(old / "old")
    made.rename(path)
    shutil.rmtree(old)


def _written(folder: Path, about: Mapping[str, Any], state: State) -> str:
    import numpy as np
    from safetensors.numpy import save_file

    parts = list(_walk(state))
    values = {name: part.values for name, part in parts}
    (folder / _VALUES).write_bytes(msgspec.json.format(msgspec.json.encode(values), indent=1))
    # safetensors writes the bytes as they lie in memory, whatever the strides say.
    arrays = {
        f"{name}:{key}": np.ascontiguousarray(array)
        for name, part in parts
        for key, array in part.arrays.items()
    }
    save_file(arrays, folder / _ARRAYS)
    (folder / "texts").mkdir()
    texts = {f"{name}:{key}": text for name, part in parts for key, text in part.texts.items()}
    names = {key: f"texts/{place}.txt" for place, key in enumerate(sorted(texts))}
    for key, name in names.items():
        (folder / name).write_text(texts[key], encoding="utf-8")
    files = {name: _measured(folder / name) for name in (_VALUES, _ARRAYS, *names.values())}
    manifest: dict[str, Any] = {
        "kind": KIND,
        "format": FORMAT,
        "about": dict(about),
        "files": files,
        "texts": names,
    }
    manifest["id"] = _identity(manifest)
    (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return str(manifest["id"])


def _walk(state: State, name: str = "") -> Iterator[tuple[str, State]]:
    yield name, state
    for key, part in state.parts.items():
        if not key or _SEPARATOR in key or ":" in key:
            raise ValueError(f"part {key!r}: a part's name has no '/' and no ':'")
        yield from _walk(part, f"{name}{_SEPARATOR}{key}" if name else key)


def _measured(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _identity(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "id"}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def _manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    try:
        if file.is_symlink() or file.stat().st_size > _MOST_MANIFEST:
            raise BundleError(f"{file}: is no manifest of a bundle")
        manifest = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BundleError(
            f"{path}: expected a bundle made by `frugal train`, cannot read its {_MANIFEST}: {exc}"
        ) from exc
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise BundleError(f"{file}: is not the manifest of a router's bundle")
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{path}: has format {manifest.get('format')!r}, this version reads {FORMAT}; "
            "train it again"
        )
    if not all(isinstance(manifest.get(key), dict) for key in ("about", "files", "texts")):
        raise BundleError(f"{file}: lacks its lists of files")
    return manifest


def _checked_files(path: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    files = manifest["files"]
    if set(files) != {_VALUES, _ARRAYS, *manifest["texts"].values()}:
        raise BundleError(f"{path / _MANIFEST}: lists other files than a bundle has")
    there = {str(each.relative_to(path)) for each in path.rglob("*") if not each.is_dir()}
    if there != {*files, _MANIFEST}:
        odd = ", ".join(sorted(there ^ {*files, _MANIFEST})[:5])
        raise BundleError(f"{path}: a file too many or too few: {odd}")
    read, left = {}, MOST_BYTES
    for name, expected in files.items():
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise BundleError(f"{file}: is no plain file")
        left -= file.stat().st_size
        if left < 0:
            raise BundleError(f"{path}: is larger than {MOST_BYTES} bytes")
        data = file.read_bytes()
        if not isinstance(expected, dict) or expected.get("bytes") != len(data):
            raise BundleError(f"{file}: has not the size that was written")
        if hashlib.sha256(data).hexdigest() != expected.get("sha256"):
            raise BundleError(f"{file}: its bytes are not those that were written")
        read[name] = data
    read["texts"] = msgspec.json.encode(manifest["texts"])
    return read


def _state(path: Path, files: Mapping[str, bytes]) -> State:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        values = msgspec.json.decode(files[_VALUES], type=dict[str, dict[str, Any]])
        arrays = load(files[_ARRAYS])
        names = msgspec.json.decode(files["texts"], type=dict[str, str])
    except (msgspec.MsgspecError, SafetensorError, ValueError, KeyError) as exc:
        raise BundleError(f"{path}: cannot be read: {exc}") from exc
    texts = {key: files[name].decode("utf-8", "strict") for key, name in names.items()}
    return _assembled(path, values, arrays, texts)


def _assembled(
    path: Path,
    values: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, Any],
    texts: Mapping[str, str],
) -> State:
    for kind in (arrays, texts):
        for key in kind:
            if key.partition(":")[0] not in values:
                raise BundleError(f"{path}: {key!r} belongs to no part")

    def part(name: str) -> State:
        inside = f"{name}{_SEPARATOR}" if name else ""
        below = {key.removeprefix(inside) for key in values if key and key.startswith(inside)}
        children = sorted(each for each in below if each and _SEPARATOR not in each)
        return State(
            values[name],
            _of(name, arrays),
            _of(name, texts),
            {c: part(inside + c) for c in children},
        )

    return part("")


def _of(name: str, things: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key, thing in things.items():
        owner, _, own = key.partition(":")
        if owner == name:
            found[own] = thing
    return found
