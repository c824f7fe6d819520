"""The compiled loops, as functions: used only where they were built and give what torch gives."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from local_engine.native.compiler import CannotBuild, built, cache_directory

log = logging.getLogger(__name__)

LANES = 16
"""Loops between products take widths that are multiples of this."""

SWITCH = "FRUGAL_NATIVE"
"""Environment variable: `off` leaves everything to torch."""


def structure(
    name: str, *, pointers: str, longs: str, floats: str, ints: str
) -> type[ctypes.Structure]:
    """Make a structure of the C sources, whose fields are in this order of kinds."""
    kinds = zip(
        (pointers, longs, floats, ints),
        (ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int),
        strict=True,
    )
    fields = [(field, kind) for names, kind in kinds for field in names.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


class Weight(ctypes.Structure):
    """`struct weight` of product.h."""

    _fields_ = (
        ("columns", ctypes.c_long),
        ("outputs", ctypes.c_long),
        ("lines", ctypes.c_long),
        ("group", ctypes.c_long),
        ("values", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class Rows(ctypes.Structure):
    """`struct rows` of product.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("count", ctypes.c_long),
        ("x_is_bf16", ctypes.c_int),
        ("y_is_bf16", ctypes.c_int),
        ("threads", ctypes.c_int),
    )


Product = Callable[[object, object], int]


class Native:
    """The loops of one library, on torch's own threads where `is_parallel`."""

    def __init__(self, path: Path, *, is_parallel: bool) -> None:
        self.library = ctypes.CDLL(str(path))
        self.is_parallel = is_parallel
        self.bf16: Product = self.library.frugal_bf16
        self.int8: Product = self.library.frugal_int8
        self.int4: Product = self.library.frugal_int4

    @property
    def threads(self) -> int:
        """Return how many threads a loop takes: as many as torch."""
        return torch.get_num_threads() if self.is_parallel else 1

    @property
    def pays(self) -> bool:
        """Tell whether the loops have as many threads as torch would take."""
        return self.is_parallel or torch.get_num_threads() == 1

    def multiply(self, product: Product, weight: Weight, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the product of rows in fp32 or bf16 with a weight, in fp32 or bf16."""
        x = x.contiguous()
        y = torch.empty(len(x), weight.outputs, dtype=dtype)
        rows = Rows(
            x.data_ptr(),
            y.data_ptr(),
            len(x),
            x.dtype == torch.bfloat16,
            dtype == torch.bfloat16,
            self.threads,
        )
        if product(ctypes.byref(weight), ctypes.byref(rows)):
            raise MemoryError("no memory for a product")
        return y


@functools.cache
def find_native() -> Native | None:
    """Build, load and try the loops, once a process; None where torch is to go on alone."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no", "false"):
        log.info("native loops are off (%s); torch computes", SWITCH)
        return None
    try:
        native = opened(cache_directory())
    except CannotBuild as exc:
        log.warning("native loops cannot be used, torch computes: %s", exc)
        return None
    from local_engine.native.trial import fault_of

    fault = fault_of(native)
    if fault is not None:
        log.warning("native loops are wrong here, torch computes: %s", fault)
        return None
    log.info("native loops are used, on %s", "all threads" if native.is_parallel else "one thread")
    return native


def native_for(device: torch.device) -> Native | None:
    """Return the loops where they are the quickest way on a device."""
    native = find_native() if device.type == "cpu" else None
    return native if native is not None and native.pays else None


def opened(directory: Path) -> Native:
    """Build and load the library with torch's OpenMP, else without threads."""
    openmp = _loaded_openmp()
    if openmp is not None:
        try:
            return _loaded(built(directory, openmp), is_parallel=True)
        except CannotBuild as exc:
            log.info("native loops cannot take torch's threads: %s", exc)
    return _loaded(built(directory, None), is_parallel=False)


def _loaded(path: Path, *, is_parallel: bool) -> Native:
    try:
        return Native(path, is_parallel=is_parallel)
    except (OSError, AttributeError) as exc:
        raise CannotBuild(f"{path} cannot be loaded: {exc}") from exc


def _loaded_openmp() -> Path | None:
    """Return the file of the OpenMP library that torch has loaded."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    files = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line}
    return Path(files.pop()) if len(files) == 1 else None
