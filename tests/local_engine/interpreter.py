"""Triton's interpreter, which runs kernels on a CPU, slowly."""

from __future__ import annotations

import os

import pytest


def require_interpreter() -> None:
    """Skip the module that calls this unless its kernels can be run here."""
    pytest.importorskip("triton", reason="triton is not installed; it comes with torch for CUDA")
    if os.environ.get("TRITON_INTERPRET") != "1":
        # Triton decides when it is first imported, which may be long before a test file is.
        pytest.skip("start pytest with TRITON_INTERPRET=1", allow_module_level=True)
