"""The C sources, compiled for this very processor and kept for the next time.

One shared library named KEY-CHECKSUM: the key is a digest of the sources, the flags, the
compiler and the processor, the checksum one of the file itself. What others own or may
write is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class CannotBuild(Exception):
    """There is no library to load, and why."""


def cache_directory() -> Path:
    """Return where compiled code is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "frugal-gateway" / "native"


def built(directory: Path, openmp: Path | None) -> Path:
    """Return the compiled library, from the directory where it is sound; raises `CannotBuild`.

    Threads come from the given OpenMP library; without one, loops run on one thread.
    """
    compiler = _compiler()
    version = _run([compiler, "--version"])
    key = _key(version, openmp)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(directory, is_kind=stat.S_ISDIR)
        return next(_sound(directory, key), None) or _compiled(directory, key, compiler, openmp)
    except OSError as exc:
        raise CannotBuild(f"{directory} cannot be used: {exc.strerror or exc}") from exc


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if found is None:
        raise CannotBuild(f"no C compiler was found; looked for {', '.join(_COMPILERS)}")
    return found


def _sources() -> list[Path]:
    return sorted(SOURCE.glob("*.c"))


def _key(version: str, openmp: Path | None) -> str:
    digest = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.read_bytes())
    for part in (*FLAGS, *_target(), version, str(openmp), _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def _target() -> tuple[str, ...]:
    return ("-march=native",) if platform.machine() in ("x86_64", "AMD64") else ("-mcpu=native",)


def _processor() -> str:
    """Describe this processor: a home directory may be shared by machines that differ."""
    wanted = ("model name", "flags", "Features", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    return "\n".join(line for line in lines if line.startswith(wanted))


def _sound(directory: Path, key: str) -> Iterator[Path]:
    """Yield the kept library; one that does not match its name is thrown away."""
    for file in directory.glob(f"{key}-*.so"):
        _check_ours(file, is_kind=stat.S_ISREG)
        if file.stem == f"{key}-{_checksum(file)}":
            yield file
        else:
            file.unlink(missing_ok=True)


def _check_ours(path: Path, *, is_kind: Callable[[int], bool]) -> None:
    found = path.lstat()
    if not is_kind(found.st_mode) or found.st_uid != os.geteuid():
        raise CannotBuild(f"{path} is not ours; remove it")
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise CannotBuild(f"{path} may be written by others; run chmod go-w on it")


def _compiled(directory: Path, key: str, compiler: str, openmp: Path | None) -> Path:
    with tempfile.TemporaryDirectory(dir=directory, prefix="build-") as name:
        folder = Path(name)
        threads = ["-fopenmp"] if openmp else []
        _run([compiler, *FLAGS, *_target(), *threads, "-c", *map(str, _sources())], folder)
        made = folder / "made.so"
        # Linked by its path, so that there is one pool of threads: torch's.
        libraries = [str(openmp)] if openmp else []
        objects = [str(folder / f"{source.stem}.o") for source in _sources()]
        _run([compiler, "-shared", "-o", str(made), *objects, *libraries, "-lm"], folder)
        made.chmod(0o600)
        final = directory / f"{key}-{_checksum(made)}.so"
        os.replace(made, final)
    return final


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CannotBuild(f"{command[0]} did not run: {exc}") from exc
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        reason = lines[0] if lines else f"it ended with {done.returncode}"
        raise CannotBuild(f"{command[0]} failed: {reason}")
    return done.stdout


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]
