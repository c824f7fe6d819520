"""Products of quantized weights on a GPU, each by itself: shares of what reading them takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from local_engine.bench.gpu_rows import Machine
from local_engine.bench.rows import Row

if TYPE_CHECKING:
    from local_engine.quant.triton_products import Cut

SIZES = ((6144, 4096), (28672, 4096), (4096, 14336))
"""Outputs and inputs of the products of an 8B Llama: qkv, gate and up, down."""
ROWS = (1, 4, 16, 64)
CALLS = 40
# Weights in turns, so that none is found in the cache of the device.
_COPIES = 4
_GROUP = 128


@dataclass(frozen=True, slots=True)
class _Work:
    """A product with the n-th copy of a weight, and the bytes that one copy has."""

    name: str
    nbytes: int
    call: Callable[[int], Tensor]


def product_rows(machine: Machine, has_time: Callable[[], bool], *, tunes: bool) -> Iterator[Row]:
    """Tell for each product the share of the floor that reading its weight sets."""
    for (outputs, inputs), rows in itertools.product(SIZES, ROWS):
        if not has_time():
            return
        x = torch.randn(rows, inputs, device=machine.device).to(torch.bfloat16)
        for works in (_plain, _int8, _int4):
            for work in works(x, outputs, tunes=tunes):
                share = 100 * work.nbytes / machine.bandwidth / _seconds(work.call)
                yield Row(f"{work.name}, {rows} x {inputs} to {outputs}", share, "%")


def _plain(x: Tensor, outputs: int, *, tunes: bool) -> Iterator[_Work]:
    weight = torch.randn(_COPIES, outputs, x.shape[1], device=x.device).to(torch.bfloat16)
    yield _Work("bf16", weight[0].nbytes, lambda n: x @ weight[n].T)


def _int8(x: Tensor, outputs: int, *, tunes: bool) -> Iterator[_Work]:
    from local_engine.quant.triton_products import int8_cut, int8_product

    size = (_COPIES, outputs, x.shape[1])
    weight = torch.randint(-127, 128, size, device=x.device, dtype=torch.int8)
    scale = torch.rand(outputs, device=x.device)

    def call_with(cut: Cut) -> Callable[[int], Tensor]:
        return lambda n: int8_product(x, weight[n], scale, cut=cut)

    for mark, cut in _cuts(int8_cut(len(x)), most_depth=1024, tunes=tunes):
        yield _Work(f"int8{mark}", weight[0].nbytes, call_with(cut))


def _int4(x: Tensor, outputs: int, *, tunes: bool) -> Iterator[_Work]:
    from local_engine.quant.triton_products import int4_cut, int4_product

    inputs = x.shape[1]
    size = (_COPIES, inputs, outputs // 2)
    packed = torch.randint(0, 256, size, device=x.device, dtype=torch.uint8)
    pair = torch.rand(inputs // _GROUP, outputs, 2, device=x.device).to(torch.bfloat16)

    def call_with(cut: Cut) -> Callable[[int], Tensor]:
        return lambda n: int4_product(x, packed[n], pair, outputs, cut=cut)

    for mark, cut in _cuts(int4_cut(len(x), _GROUP), most_depth=_GROUP, tunes=tunes):
        yield _Work(f"int4{mark}", packed[0].nbytes + pair.nbytes, call_with(cut))


def _cuts(standard: Cut, *, most_depth: int, tunes: bool) -> Iterator[tuple[str, Cut]]:
    """Yield the cut that is used, and where it is to be tuned those around it, with a mark."""
    yield "", standard
    if not tunes:
        return
    for outputs, depth, warps in itertools.product((0.5, 1, 2), (0.5, 1, 2), (4, 8)):
        cut = replace(
            standard,
            outputs=max(16, int(standard.outputs * outputs)),
            depth=int(standard.depth * depth),
            warps=warps,
        )
        if cut != standard and cut.depth <= most_depth:
            yield f" ({cut.outputs} by {cut.depth}, {warps} warps)", cut


def _seconds(call: Callable[[int], Tensor]) -> float:
    """Return the mean seconds of a call, by the clock of the device."""
    for n in range(_COPIES):
        call(n)
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    begin.record()
    for n in range(CALLS):
        call(n % _COPIES)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / CALLS
