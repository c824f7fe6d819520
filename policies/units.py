"""Durations, sizes and counts as people write them."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def parse_duration(value: object) -> object:
    """Turn `250ms`, `2s`, `5m`, `24h` or `7d` into seconds; leave numbers alone.

    Raises ValueError for any other text.
    """
    value = not_a_bool(value)
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    if found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)", value.strip()):
        return float(found[1]) * _SECONDS[found[2]]
    raise ValueError(f"expected a duration such as 250ms, 2s, 5m, 24h or 7d, found {value!r}")


def parse_bytes(value: object) -> object:
    """Turn `10MB` or `512KiB` into bytes; leave numbers alone.

    Raises ValueError for any other text.
    """
    value = not_a_bool(value)
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    if found := re.fullmatch(r"([0-9]{1,18})\s*(B|KB|MB|GB|KiB|MiB)", value.strip()):
        return int(found[1]) * _BYTES[found[2]]
    raise ValueError(f"expected a size such as 512KiB or 10MB, found {value!r}")


def not_a_bool(value: object) -> object:
    """Refuse true and false, which Python would take for 1 and 0.

    Raises ValueError for them.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {str(value).lower()}")
    return value
