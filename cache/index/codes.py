"""Unit vectors in one byte a number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.index.types import Vectors

Codes = NDArray[Any]
"""Rows of whole numbers from -127 to 127; int8 at rest, float32 where faiss takes them."""

_STEPS = 15.0


def encoded(vectors: Vectors) -> Codes:
    """Return unit vectors as codes, one row each; a cosine moves by about 0.001."""
    rows = np.atleast_2d(np.asarray(vectors, np.float32))
    codes: Codes = np.clip(np.rint(rows * _scale(rows.shape[1])), -127, 127).astype(np.int8)
    return codes


def decoded(codes: Codes) -> Vectors:
    """Return codes as vectors of about unit length."""
    return codes.astype(np.float32) / _scale(codes.shape[-1])


def cosine(product: float, width: int) -> float:
    """Return the cosine that a product of codes stands for."""
    return product / _scale(width) ** 2


def drawn(places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return so many of the places, drawn alike each time."""
    return np.random.default_rng(len(places)).permutation(places)[:count]


def _scale(width: int) -> float:
    """Return how many steps make 1.

    Most numbers of a unit vector lie within a few times 1 / sqrt(width) of zero; what
    lies more than eight times as far is cut off.
    """
    return _STEPS * math.sqrt(width)
