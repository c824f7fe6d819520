"""Whether Triton's products are used on a device: only where they give what torch gives."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from local_engine.trial import passes, trial_dtype, worst

MOST_ROWS = 64
"""Above this, one expansion of the weight and torch's own product are cheaper on a GPU."""

TOLERANCE = 2e-2
"""Relative to the largest output, in bf16."""


def takes_triton(device: torch.device) -> bool:
    """Tell whether products on a device are Triton's."""
    return device.type == "cuda" and has_products(device)


@functools.cache
def has_products(device: torch.device) -> bool:
    """Tell whether Triton's products run on a device and give there what torch gives."""
    return passes("product", device, TOLERANCE, distance)


def distance(device: torch.device) -> float:
    """Return how far the kernels are from torch on small inputs, one row and several."""
    return worst(_int8_distance(device), _int4_distance(device))


@functools.cache
def has_fp8_product(device: torch.device) -> bool:
    """Tell whether the product of bytes reads e4m3 weights, too: older devices know none."""
    return passes("fp8 product", device, TOLERANCE, fp8_distance)


def fp8_distance(device: torch.device) -> float:
    """Return how far the product with e4m3 weights is from torch."""
    weight = torch.linspace(-400, 400, 96 * 1024, device=device).view(1024, 96).T.contiguous()
    return _bytes_distance(device, weight.to(torch.float8_e4m3fn))


def _inputs(rows: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 1024, generator=generator).to(device, trial_dtype(device))


def _int8_distance(device: torch.device) -> float:
    weight = ((torch.arange(96 * 1024) * 37) % 255 - 127).view(96, 1024).to(torch.int8)
    return _bytes_distance(device, weight.to(device))


def _bytes_distance(device: torch.device, weight: Tensor) -> float:
    from local_engine.quant.triton_products import int8_product

    scale = torch.linspace(0.001, 0.01, len(weight), device=device)
    expanded = weight.float() * scale[:, None]
    found = []
    for rows in (1, 3, 20):
        x = _inputs(rows, device)
        found.append(_distance(int8_product(x, weight, scale), x.float() @ expanded.T))
    return worst(*found)


def _int4_distance(device: torch.device) -> float:
    from local_engine.quant.triton_products import int4_product

    packed = ((torch.arange(1024 * 64) * 37 + 11) % 256).view(1024, 64).to(torch.uint8).to(device)
    pair = torch.linspace(0.01, 0.1, 16 * 128 * 2, device=device).view(16, 128, 2)
    q = torch.cat((packed & 15, packed >> 4), dim=1).float() - 8
    scale, middle = (pair[..., n].repeat_interleave(64, dim=0) for n in range(2))
    expanded = q * scale + middle
    found = []
    for rows in (1, 3, 20):
        x = _inputs(rows, device)
        found.append(_distance(int4_product(x, packed, pair, 128), x.float() @ expanded))
    return worst(*found)


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).abs().max() / wanted.abs().max())
