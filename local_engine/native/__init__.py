"""Small C loops for decoding on a CPU, compiled where they run; torch goes on without them."""

from __future__ import annotations

from local_engine.native.library import Native, find_native, native_for
from local_engine.native.memory import settled

__all__ = ["Native", "find_native", "native_for", "settled"]
