"""What a learnt part keeps on disk: plain values, arrays and texts, never code.

Every learnt part gives a `State` and is made again from one. The bundle writes
the values as JSON, the arrays as safetensors and the texts (trees as LightGBM
prints them) as they are, so that reading a bundle can run nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class State:
    """One part's state. `values` is JSON, `arrays` are numpy arrays of plain numbers."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, State] = field(default_factory=dict)
