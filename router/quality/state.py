"""Reading what was learnt back from disk, with no trust in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.state import State
from router.types import RouterError


class QualityError(RouterError):
    """A quality model that cannot be fitted, or a kept one that cannot be used."""


def array_of(state: State, name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Return an array of finite numbers of this shape (None: any length). Raises QualityError."""
    array = state.arrays.get(name)
    if array is None:
        raise QualityError(f"quality model: array {name!r} is missing")
    fits = array.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise QualityError(
            f"quality model: {name!r}: expected finite numbers of shape {shape}, "
            f"found {array.dtype} of shape {array.shape}"
        )
    return array


def part_of(state: State, name: str) -> State:
    """Return a part's state. Raises QualityError."""
    if name not in state.parts:
        raise QualityError(f"quality model: part {name!r} is missing")
    return state.parts[name]


def names_of(state: State, name: str) -> list[str]:
    """Return a list of different texts. Raises QualityError."""
    found = state.values.get(name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise QualityError(
            f"quality model: {name!r}: expected a list of names, found {found!r:.60}"
        )
    if len(set(found)) < len(found):
        raise QualityError(f"quality model: {name!r}: a name occurs twice")
    return found
