"""Whether the fused steps are used on a device: only where they give what torch gives."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.fused.native_steps import NativeSteps
from local_engine.kv import KvShape, PagedKv
from local_engine.native import Native, native_for
from local_engine.native.library import LANES
from local_engine.rope import rotate
from local_engine.trial import agrees, passes, trial_dtype, worst

CPU = torch.device("cpu")

TOLERANCE = 4e-2
"""In bf16, beside values of about one."""


class Steps(Protocol):
    """The small steps of a layer, each as one kernel or one loop."""

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float, /
    ) -> tuple[Tensor, Tensor]:
        """Return `x + delta` and its norm, both `[rows, width]` in the type of x."""

    def turn_and_write(
        self,
        layer: int,
        qkv: Tensor,
        turn: tuple[Tensor, Tensor],
        norm: Tensor | None,
        eps: float,
        slots: Tensor,
        cache: PagedKv,
        heads: int,
        /,
    ) -> Tensor:
        """Return the turned queries; keys, turned, and values go to each row's slot."""

    def gate(self, gate_up: Tensor, /, *, is_gelu: bool) -> Tensor:
        """Return `act(first half) * second half` of each row."""


def steps_for(device: torch.device, dtype: torch.dtype, widths: Iterable[int]) -> Steps | None:
    """Return the fused steps for rows and heads of some widths; None where torch's are used."""
    if takes_fused(device):
        from local_engine.fused import triton_steps

        return triton_steps
    is_fit = dtype in (torch.float32, torch.bfloat16) and not any(w % LANES for w in widths)
    native = native_for(device) if is_fit else None
    return None if native is None or not has_native_steps(native) else NativeSteps(native)


def takes_fused(device: torch.device) -> bool:
    """Tell whether the small steps of a layer are Triton's on a device."""
    return device.type == "cuda" and has_fused(device)


@functools.cache
def has_fused(device: torch.device) -> bool:
    """Tell whether the kernels run on a device and give there what torch gives."""
    return passes("norm, turn or gate", device, TOLERANCE, distance)


@functools.cache
def has_native_steps(native: Native) -> bool:
    """Tell whether the native loops give what torch gives."""
    steps = NativeSteps(native)
    return agrees("a native norm, turn or gate", CPU, 1e-5, lambda device: _apart_by(steps, device))


def distance(device: torch.device) -> float:
    """Return how far Triton's kernels are from torch on small inputs."""
    from local_engine.fused import triton_steps

    return _apart_by(triton_steps, device)


def _apart_by(steps: Steps, device: torch.device) -> float:
    """Return how far steps are from torch on small inputs."""
    return worst(
        _norm_distance(steps, device), _turn_distance(steps, device), _gate_distance(steps, device)
    )


def _random(device: torch.device, *sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(sizes))
    return torch.randn(sizes, generator=generator).to(device, trial_dtype(device))


def _norm_distance(steps: Steps, device: torch.device) -> float:
    x, delta, weight = _random(device, 3, 208), _random(device, 3, 208), _random(device, 208)
    total, out = steps.add_norm(x, delta, weight, 1e-6)
    wanted = F.rms_norm((x + delta).float(), (208,), weight.float(), 1e-6)
    return worst(_apart(total, x + delta), _apart(out, wanted))


def _turn_distance(steps: Steps, device: torch.device) -> float:
    qkv, norm = _random(device, 3, 8, 48), _random(device, 6, 48)
    turn = _random(device, 3, 1, 32), _random(device, 3, 1, 32)
    cache = PagedKv(KvShape(1, 2, 48), 2, qkv.dtype, device)
    slots = torch.tensor([20, 17, 33], device=device)
    q = steps.turn_and_write(0, qkv, turn, norm, 1e-6, slots, cache, 4)
    plain = F.rms_norm(qkv[:, :6].float(), (48,), None, 1e-6) * norm.float()
    wanted = rotate(plain, *(t.float() for t in turn))
    keys, values = cache.keys[0][slots], cache.values[0][slots]
    return worst(_apart(q, wanted[:, :4]), _apart(keys, wanted[:, 4:]), _apart(values, qkv[:, 6:]))


def _gate_distance(steps: Steps, device: torch.device) -> float:
    both = _random(device, 3, 320)
    first, second = both.float().chunk(2, dim=-1)
    silu, gelu = F.silu(first) * second, F.gelu(first, approximate="tanh") * second
    return worst(
        _apart(steps.gate(both, is_gelu=False), silu), _apart(steps.gate(both, is_gelu=True), gelu)
    )


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to what is larger than one."""
    wanted = wanted.float()
    return float(((found.float() - wanted).abs() / wanted.abs().clamp_min(1.0)).max())
