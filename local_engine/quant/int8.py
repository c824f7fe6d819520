"""Products with int8 weights: q = round(w / s), s = max|w| / 127 per output; y = (x qᵀ) s.

Integer products read a weight once as the bytes it is, where torch's weight-only kernel
turns every number into a float first. Activations have 16 bits there: the native loops
take them whole, torch's products as two planes of 8: x = t (h + l / 254), so y = t s (h qᵀ
+ l qᵀ / 254), in one product of twice the rows. Both are exact to 3e-5 where the weight-only
kernel's bf16 gives 3e-3. On one core of a Xeon with AMX the native loops read a weight at
15 GB/s for one row and at 8 for eight; torch's at 7 and 6.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from local_engine.native import native_for
from local_engine.native.products import Int8Product
from local_engine.quant.paths import MOST_ROWS, takes_triton

# From here on torch's integer product is quicker than the native loops.
_NATIVE_ROWS = 12
# Above this many rows one expansion of the weight is cheaper.
_PLANE_ROWS = 128
_KERNEL_ROWS = 16
_FINER = 254
# So far from the middle of 16 bits that rounding stays within them.
_LARGEST = 32512
# The integer sums of more inputs could leave 32 bits.
_MOST_INPUTS = 1 << 16


def int8_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values `[out, in]` and bf16 scales `[out]`."""
    scale = (weight.float().abs().amax(dim=1) / 127.0).clamp_min(1e-12).to(torch.bfloat16)
    # The scale is rounded first, so that the integers absorb its rounding error.
    ratio = weight.float() / scale.float()[:, None]
    return ratio.round().clamp(-127, 127).to(torch.int8), scale


class Int8Linear:
    """A product with an int8 weight and one bf16 scale per output channel."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.scale = scale
        self.bias = bias
        self._scale = scale.float()
        self._zeros = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
        self._is_triton = takes_triton(weight.device)
        self.native: Int8Product | None = None
        is_short, device = weight.shape[1] <= _MOST_INPUTS, weight.device.type
        if is_short and (native := native_for(weight.device)) is not None:
            self.native = Int8Product(native, weight, scale, bias)
            weight = self.native.weight
        self.has_planes = is_short and self.native is None and has_integer_product(device)
        self._takes_plain = self.native is not None and has_plain_integer_product(device)
        self._held = _prepacked(weight) if self.has_planes else weight

    @property
    def weight(self) -> Tensor:
        """Return the integers `[out, in]`."""
        return self._held.to_dense().t() if self.has_planes else self._held

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_triton and len(x) <= MOST_ROWS:
            return self._by_triton(x, x.dtype)
        if self.native is not None and len(x) <= _NATIVE_ROWS:
            return self.native(x, x.dtype)
        y = self._product(x).to(x.dtype)
        return y if self.bias is None else y + self.bias

    def _by_triton(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        from local_engine.quant.triton_products import int8_product

        return int8_product(x, self._held, self.scale, self.bias, dtype=dtype)

    def _product(self, x: Tensor) -> Tensor:
        """Return the product without bias, in fp32 or bf16."""
        if self.has_planes and len(x) == 1:
            planes, unit = split_row(x)
            y = _integer_product(planes, self._held, self._scale, self._zeros, unit)
            low_sums, high_sums = y.unbind(0)
            return torch.add(low_sums, high_sums, alpha=256)[None]
        if self.has_planes and len(x) <= _PLANE_ROWS:
            planes, step = split(x)
            y = _integer_product(planes, self._held, self._scale, self._zeros)
            return torch.add(y[: len(x)], y[len(x) :], alpha=1 / _FINER).mul_(step)
        if self._takes_plain and len(x) <= _PLANE_ROWS:
            return self._of_planes(x)
        low = x.to(torch.bfloat16)
        if not self.has_planes and len(x) <= _KERNEL_ROWS and has_int8_kernel(x.device.type):
            return torch._weight_int8pack_mm(low.contiguous(), self._held, self.scale)
        expanded = self._held.to_dense() if self.has_planes else self._held.t()
        return (low @ expanded.to(torch.bfloat16)) * self.scale

    def _of_planes(self, x: Tensor) -> Tensor:
        """Return the product by integers, the weight as the native loops hold it."""
        planes, step = split(x)
        signed = planes.bitwise_xor_(128).view(torch.int8)
        # Turned round, as the product is quickest with the weight first.
        sums = torch._int_mm(self._held, signed.t()).t().contiguous()
        high, low = sums.float().chunk(2)
        return torch.add(high, low, alpha=1 / _FINER).mul_(step).mul_(self._scale)

    @property
    def nbytes(self) -> int:
        """Return the bytes that weight and scales take."""
        held = self._held if self.native is None else self.native
        return held.nbytes + self.scale.nbytes


class Int8Head(Int8Linear):
    """An int8 product whose largest outputs are right to a few parts in a hundred thousand.

    Integer products and Triton's, which sum in fp32, are so by themselves. The weight-only
    kernel rounds what it gives to bf16: logits around 20 become multiples of 1/8, likely
    tokens tie, and confidence read from their distance is coarse. The few that matter are
    cheap to compute exactly; the error of the rest stays below 0.4 %.
    """

    exact = 64

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_triton and len(x) <= MOST_ROWS:
            return self._by_triton(x, torch.float32)
        if self.native is not None and len(x) <= _NATIVE_ROWS:
            return self.native(x, torch.float32)
        y = self._product(x).float()
        if (self.has_planes or self._takes_plain) and len(x) <= _PLANE_ROWS:
            return y
        held = self.weight
        best = y.topk(min(self.exact, y.shape[-1]), dim=-1).indices
        weight = held[best].float() * self.scale[best].float()[..., None]
        return y.scatter_(1, best, torch.einsum("rk,rnk->rn", x.float(), weight))


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low bytes of 16-bit activations, and the step of each row.

    Bytes are uint8 `[2 rows, in]` around 128, high ones first; steps are fp32 `[rows, 1]`,
    and a low byte counts 1 / 254 of a high one.
    """
    # As few operations as can be: on one row each costs more than what it computes.
    step = torch.linalg.vector_norm(x, torch.inf, -1, keepdim=True, dtype=torch.float32)
    step = step.clamp_min_(1e-30).mul_(1 / 127)
    wide = x / step
    high = wide.round()
    low = wide.sub_(high).mul_(_FINER)
    # Rounded down after adding a half more: what is converted is never negative.
    return torch.cat((high, low)).add_(128.5).to(torch.uint8), step


def split_row(x: Tensor) -> tuple[Tensor, float]:
    """Return the low and the high bytes of one row in 16 bits, and what one step is worth.

    The same numbers to half a step, in half as many operations: with v = x / step, the
    integer v + 128 * 257 has bytes l and h with v = 256 (h - 128) + (l - 128).
    """
    largest = x.abs().max().item()
    step = max(largest, 1e-30) / _LARGEST
    # A half more, as the conversion cuts off.
    shifted = torch.add(_middle(x.shape[1]), x, alpha=1 / step).to(torch.int32)
    planes = shifted.view(torch.uint8).as_strided((2, x.shape[1]), (1, 4))
    return planes.contiguous(), step


@functools.cache
def _middle(columns: int) -> Tensor:
    return torch.full((1, columns), 128 * 257 + 0.5)


def _prepacked(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
    return packed


def _integer_product(
    planes: Tensor, packed: Tensor, scale: Tensor, zeros: Tensor, unit: float = 1.0
) -> Tensor:
    """Return (planes - 128) qᵀ s in fp32 times a unit, summed in integers."""
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        planes, unit, 128, packed, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


@functools.cache
def has_integer_product(device: str) -> bool:
    """Tell whether torch's integer product is there and adds up without saturating.

    The operator is private to torch, and processors without VNNI add pairs of products
    in 16 bits, so it is tried on the largest numbers first.
    """
    if device != "cpu" or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    planes = ((torch.arange(4 * 256) * 61) % 256).reshape(4, 256).to(torch.uint8)
    planes[0], planes[1] = 255, 0
    weight = ((torch.arange(48 * 256) * 37) % 256 - 128).reshape(48, 256).to(torch.int8)
    weight[0], weight[1] = 127, -128
    zeros = torch.zeros(48, dtype=torch.int64)
    try:
        packed = _prepacked(weight)
        found = _integer_product(planes, packed, torch.ones(48), zeros)
        is_kept = torch.equal(packed.to_dense().t(), weight)
    except (RuntimeError, TypeError):  # no kernel here, or another version's signature
        return False
    wanted = (planes.to(torch.int64) - 128) @ weight.to(torch.int64).T
    return is_kept and torch.equal(found.to(torch.int64), wanted)


@functools.cache
def has_plain_integer_product(device: str) -> bool:
    """Tell whether torch's product of signed bytes as they lie is there and adds up exactly."""
    if device != "cpu" or not hasattr(torch, "_int_mm"):
        return False
    weight, planes = (
        ((torch.arange(n * 256) * k) % 256 - 128).view(n, 256).to(torch.int8)
        for n, k in ((48, 37), (34, 61))
    )
    weight[0], weight[1], planes[0], planes[1] = 127, -128, 127, -128
    try:
        found = torch._int_mm(weight, planes.t())
    except RuntimeError:  # an operator without a kernel for this processor raises a kind of it
        return False
    return torch.equal(found.long(), weight.long() @ planes.long().t())


@functools.cache
def has_int8_kernel(device: str) -> bool:
    """Tell whether torch's weight-only kernel is there and computes what it should.

    The operator is private to torch, so it is tried on known numbers first.
    """
    if not hasattr(torch, "_weight_int8pack_mm"):
        return False
    x = torch.linspace(-1, 1, 3 * 64, device=device).reshape(3, 64).to(torch.bfloat16)
    weight = ((torch.arange(32 * 64, device=device) * 37) % 255 - 127).reshape(32, 64)
    scale = torch.linspace(0.001, 0.01, 32, device=device).to(torch.bfloat16)
    try:
        found = torch._weight_int8pack_mm(x, weight.to(torch.int8), scale).float()
    except RuntimeError:  # an operator without a kernel for this device raises a kind of it
        return False
    wanted = (x.float() @ weight.float().T) * scale.float()
    return bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max())
