"""Look-ups in a JSON file that somebody else wrote: typed, bounded, and named when wrong."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_engine.errors import CheckpointError

_JSON_BYTES = 64 << 20


def check_regular(path: Path) -> None:
    """Raise unless a path leads to a file: a pipe would be waited on for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(path, "cannot be read (expected a file, found something else)")


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object, or raise a `CheckpointError` that names the file."""
    try:
        check_regular(path)
        if path.stat().st_size > _JSON_BYTES:
            raise CheckpointError(path, f"expected JSON under {_JSON_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise CheckpointError(path, f"cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(path, f"expected a JSON object, found broken JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise CheckpointError(path, f"expected a JSON object, found {type(value).__name__}")
    return value


class Fields:
    """Typed, bounded look-ups in one JSON object."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def fail(self, key: str, expected: str, found: object) -> CheckpointError:
        """Make the error that says what was expected under a key."""
        return CheckpointError(self.path, f"{key}: expected {expected}, found {found!r}"[:300])

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number within bounds; null counts as absent."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """Return a finite number within bounds; null counts as absent."""
        value: Any = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self.fail(key, f"a number from {low} to {high}", value)
        return float(value)

    def optional_number(
        self, key: str, low: float, high: float, default: float | None
    ) -> float | None:
        """Return a number, None where null stands there, the default where nothing does."""
        if key not in self.values:
            return default
        return None if self.values[key] is None else self.number(key, low, high)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false; null counts as absent."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def text(self, key: str, default: str) -> str:
        """Return a string; null counts as absent."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(key, "text", value)
        return value

    def numbers(self, key: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """Return a list of exactly so many numbers within bounds."""
        found = self.values.get(key)
        if not isinstance(found, list) or len(found) != count:
            raise self.fail(key, f"{count} numbers", found)
        if not all(type(n) in (int, float) and low <= n <= high for n in found):
            raise self.fail(key, f"numbers from {low} to {high}", found)
        return tuple(float(n) for n in found)

    def section(self, *keys: str) -> Fields:
        """Return the first of the named objects that is present, else an empty one."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, Mapping):
                return Fields(self.path, value)
            if value is not None:
                raise self.fail(key, "an object", value)
        return Fields(self.path, {})
