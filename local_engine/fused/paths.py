"""Whether the fused steps are used on a device: only where they give what torch gives."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.kv import KvShape, PagedKv
from local_engine.rope import rotate
from local_engine.trial import passes, trial_dtype, worst

TOLERANCE = 4e-2
"""In bf16, beside values of about one."""


def takes_fused(device: torch.device) -> bool:
    """Tell whether the small steps of a layer are fused on a device."""
    return device.type == "cuda" and has_fused(device)


@functools.cache
def has_fused(device: torch.device) -> bool:
    """Tell whether the kernels run on a device and give there what torch gives."""
    return passes("norm, turn or gate", device, TOLERANCE, distance)


def distance(device: torch.device) -> float:
    """Return how far the kernels are from torch on small inputs."""
    return worst(_norm_distance(device), _turn_distance(device), _gate_distance(device))


def _random(device: torch.device, *sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(sizes))
    return torch.randn(sizes, generator=generator).to(device, trial_dtype(device))


def _norm_distance(device: torch.device) -> float:
    from local_engine.fused.triton_steps import add_norm

    x, delta, weight = _random(device, 3, 200), _random(device, 3, 200), _random(device, 200)
    total, out = add_norm(x, delta, weight, 1e-6)
    wanted = F.rms_norm((x + delta).float(), (200,), weight.float(), 1e-6)
    return worst(_apart(total, x + delta), _apart(out, wanted))


def _turn_distance(device: torch.device) -> float:
    from local_engine.fused.triton_steps import turn_and_write

    qkv, norm = _random(device, 3, 8, 48), _random(device, 6, 48)
    turn = _random(device, 3, 1, 32), _random(device, 3, 1, 32)
    cache = PagedKv(KvShape(1, 2, 48), 2, qkv.dtype, device)
    slots = torch.tensor([20, 17, 33], device=device)
    q = turn_and_write(0, qkv, turn, norm, 1e-6, slots, cache, 4)
    plain = F.rms_norm(qkv[:, :6].float(), (48,), None, 1e-6) * norm.float()
    wanted = rotate(plain, *(t.float() for t in turn))
    keys, values = cache.keys[0][slots], cache.values[0][slots]
    return worst(_apart(q, wanted[:, :4]), _apart(keys, wanted[:, 4:]), _apart(values, qkv[:, 6:]))


def _gate_distance(device: torch.device) -> float:
    from local_engine.fused.triton_steps import gate

    both = _random(device, 3, 300)
    first, second = both.float().chunk(2, dim=-1)
    silu, gelu = F.silu(first) * second, F.gelu(first, approximate="tanh") * second
    return worst(_apart(gate(both, is_gelu=False), silu), _apart(gate(both, is_gelu=True), gelu))


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to what is larger than one."""
    wanted = wanted.float()
    return float(((found.float() - wanted).abs() / wanted.abs().clamp_min(1.0)).max())
