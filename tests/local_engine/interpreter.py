"""Triton's interpreter, which runs kernels on a CPU, slowly."""

from __future__ import annotations

import pytest


def require_interpreter() -> None:
    """Skip the module that calls this unless its kernels can be run here."""
    pytest.importorskip("triton", reason="triton is not installed; it comes with torch for CUDA")
