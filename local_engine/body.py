"""Typed look-ups in the JSON object that a client sent, with errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from local_engine.errors import InvalidRequest


class Body:
    """Typed look-ups; null counts as absent, as OpenAI's clients send it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def text(self, key: str, default: str) -> str:
        """Return text."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InvalidRequest(f"{key} must be text, found {kind_of(value)}.", key)
        return value

    def flag(self, key: str) -> bool:
        """Return true or false; absent is false."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidRequest(f"{key} must be true or false, found {kind_of(value)}.", key)
        return bool(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object; absent is empty."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise InvalidRequest(f"{key} must be an object, found {kind_of(value)}.", key)
        return value or {}

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """Return a finite number within bounds."""
        value = self.optional_number(key, low, high)
        return default if value is None else value

    def optional_number(self, key: str, low: float, high: float) -> float | None:
        """Return a finite number within bounds, None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise InvalidRequest(f"{key} must be a number from {low:g} to {high:g}.", key)
        return float(value)

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        """Return a whole number within bounds."""
        value = self.optional_integer(key, low, high)
        return default if value is None else value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        """Return a whole number within bounds, None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise InvalidRequest(f"{key} must be a whole number from {low} to {high}.", key)
        return int(value)


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    names = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")
