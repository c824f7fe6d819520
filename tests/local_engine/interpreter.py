"""Triton's interpreter, which runs kernels on a CPU, slowly."""

from __future__ import annotations

import os

import pytest


def require_interpreter() -> None:
    """Skip the module that calls this unless its kernels can be run here.

    Kernels are bound to the interpreter or to a compiler when they are imported.
    """
    os.environ.setdefault("TRITON_INTERPRET", "1")
    pytest.importorskip("triton", reason="triton is not installed; `make kernels` installs it")
