"""Hashed words folded into few dense numbers: what stands in for an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

WIDTH = 512

_SPREAD = np.uint32(2654435761)  # Knuth's multiplier: neighbours in, strangers out


def sketch(words: csr_matrix) -> NDArray[np.float32]:
    """Return [queries, WIDTH] of unit length whose cosines are nearly those of the sparse rows.

    Signed feature hashing (Weinberger et al. 2009); a row without words is all zero.
    """
    mixed = words.indices.astype(np.uint32) * _SPREAD
    bucket = (mixed >> np.uint32(23)).astype(np.intp)  # the top 9 bits: 0 to 511
    sign = np.where(mixed & np.uint32(1 << 20), 1.0, -1.0)
    owner = np.repeat(np.arange(words.shape[0]), np.diff(words.indptr))
    flat = np.bincount(owner * WIDTH + bucket, words.data * sign, words.shape[0] * WIDTH)
    rows = flat.reshape(words.shape[0], WIDTH)
    lengths = np.sqrt((rows**2).sum(1, keepdims=True))
    unit: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit
