"""Tables on disk, read in pieces: parquet and JSONL, a file or a folder of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from router.types import OutcomesError


@dataclass(frozen=True, slots=True)
class Selection:
    """What to read: these columns, of these models (None: of all); `others` notes the rest."""

    columns: Sequence[str]
    models: Collection[str] | None
    others: set[str]

    def wants(self, model: Any) -> bool:
        """Return whether rows of this model are to be read, else note its name."""
        if self.models is None or model in self.models:
            return True
        if isinstance(model, str):
            self.others.add(model)
        return False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table, by column. `rows` are their numbers in the file, counted from one."""

    file: Path
    rows: Sequence[int]
    columns: dict[str, list[Any]]

    def problem(self, index: int, message: str) -> OutcomesError:
        """Return an error that names the file and the row."""
        return OutcomesError(f"{self.file}, row {self.rows[index]}: {message}")


def files_of(path: Path, split: str | None) -> list[Path]:
    """Return the files of a table, or the one of a split.

    Raises OutcomesError when there is none.
    """
    if path.is_file():
        reader_of(path)
        return [path]
    if not path.is_dir():
        raise OutcomesError(
            f"{path}: no such file or folder; expected an outcomes table "
            "(.parquet, .jsonl, or a folder of them)"
        )
    files = sorted(f for f in path.iterdir() if f.suffix in _READERS)
    found = [f for f in files if split is None or f.stem == split]
    if not found:
        what = f"{split}.parquet or {split}.jsonl" if split else "*.parquet or *.jsonl"
        there = ", ".join(f.name for f in files) or "no tables"
        raise OutcomesError(f"{path}: expected {what} in this folder, found {there}")
    return found


def _parquet(file: Path, wanted: Selection) -> Iterator[Chunk]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise OutcomesError(
            f"{file}: reading parquet needs pyarrow; install frugal-gateway[recorded], "
            "or store the table as .jsonl"
        ) from exc
    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = [name for name in wanted.columns if name in table.schema_arrow.names]
        yield Chunk(file, (), {name: [] for name in names})  # the columns of a table without rows
        first = 1
        for batch in table.iter_batches(batch_size=8192, columns=names, use_threads=False):
            models = batch.column("model").to_pylist()
            kept = [index for index, model in enumerate(models) if wanted.wants(model)]
            chosen = batch.take(pyarrow.array(kept, pyarrow.int64()))
            columns = {name: chosen.column(name).to_pylist() for name in names}
            yield Chunk(file, [first + index for index in kept], columns)
            first += batch.num_rows
    except (pyarrow.ArrowException, OSError) as exc:
        raise OutcomesError(f"{file}: cannot be read as parquet: {exc}") from exc


def _jsonl(file: Path, wanted: Selection) -> Iterator[Chunk]:
    rows: list[int] = []
    objects: list[dict[str, Any]] = []
    there: set[str] = set()
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                found = _object(file, number, line)
                there.update(found)
                if wanted.wants(found.get("model")):
                    rows.append(number)
                    objects.append(found)
    names = [name for name in wanted.columns if name in there]
    yield Chunk(file, rows, {name: [found.get(name) for found in objects] for name in names})


def _object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        odd = any(word in line for word in (b"NaN", b"Infinity"))
        hint = "; JSON has no NaN or Infinity: write null for what is not known" if odd else ""
        raise OutcomesError(f"{file}, row {number}: is not valid JSON: {exc}{hint}") from exc
    if not isinstance(found, dict):
        raise OutcomesError(f"{file}, row {number}: expected a JSON object on each line")
    return found


_Reader = Callable[[Path, Selection], Iterator[Chunk]]
_READERS: Mapping[str, _Reader] = {".parquet": _parquet, ".jsonl": _jsonl}


def reader_of(file: Path) -> _Reader:
    """Return what reads this kind of file: `(file, selection) -> chunks`."""
    if file.suffix not in _READERS:
        raise OutcomesError(f"{file}: expected a .parquet or .jsonl file, found {file.suffix!r}")
    return _READERS[file.suffix]
