"""A policy's file and its versions: written whole or not at all, and each one kept beside it."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from policies.loader import MAX_FILE

MOST_VERSIONS = 50
_NAME = re.compile(r"(\d{6})-(\d{8}T\d{6}Z)-([A-Za-z0-9._@-]{1,64})\.yaml")
_ODD = re.compile(r"[^A-Za-z0-9._@-]")
BY_HAND = "file"
"""Who wrote a version that was not applied over HTTP."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version: its number, when it was kept, who applied it, and what its text hashes to."""

    number: int
    at: datetime
    by: str
    revision: str
    path: Path


def revision_of(text: str) -> str:
    """Return what tells one text from another."""
    return sha256(text.encode()).hexdigest()[:16]


class PolicyFile:
    """The file of the running policy, and the folder of its versions. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.folder = self.path.with_name(f"{path.name}-history")

    def read(self) -> str:
        """Return the text as it is. Raises UnicodeDecodeError."""
        with self.path.open("rb") as file:
            return file.read(MAX_FILE + 4).decode("utf-8-sig")

    def versions(self) -> list[Version]:
        """Return what was kept, newest first."""
        with suppress(FileNotFoundError):
            found = [_version(each) for each in sorted(self.folder.iterdir(), reverse=True)]
            return [each for each in found if each is not None]
        return []

    def version(self, number: int) -> Version | None:
        """Return one version, None where it is not kept."""
        return next((each for each in self.versions() if each.number == number), None)

    def keep(self, text: str, *, by: str, at: datetime) -> Version:
        """Keep a version, unless it is the newest one already; the oldest are let go."""
        kept = self.versions()
        if kept and kept[0].revision == revision_of(text):
            return kept[0]
        self.folder.mkdir(mode=0o700, exist_ok=True)
        number = kept[0].number + 1 if kept else 1
        moment = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        who = _ODD.sub("_", by)[:64] or "_"
        path = self.folder / f"{number:06d}-{moment}-{who}.yaml"
        _write(path, text, mode=0o600)
        for old in kept[MOST_VERSIONS - 1 :]:
            old.path.unlink(missing_ok=True)
        found = _version(path)
        assert found is not None, "it was named as versions are"
        return found

    def write(self, text: str) -> None:
        """Put another text in the file's place, with the rights that it has."""
        try:
            mode = self.path.stat().st_mode & 0o777
        except FileNotFoundError:
            mode = 0o600
        _write(self.path, text, mode=mode)


def _version(path: Path) -> Version | None:
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    at = datetime.strptime(found[2], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    text = path.read_text(encoding="utf-8")
    return Version(int(found[1]), at, found[3], revision_of(text), path)


def _write(path: Path, text: str, *, mode: int) -> None:
    """Write beside, to the disk, then rename: a reader sees the old text or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
