"""Norms, positions and gates as Triton kernels: what torch does in eleven launches, in four.

At batch 1 a layer's small steps cost more in launches than in arithmetic. Each kernel
rounds where the torch path does, or less often. Tested with Triton's interpreter, not
timed on a GPU.
"""

import triton
import triton.language as tl


@triton.jit
def add_norm_kernel(
    x_at, delta_at, weight_at, sum_at, out_at, width, eps,
    BLOCK: tl.constexpr, HAS_DELTA: tl.constexpr,
):  # fmt: skip
    """Add what a half layer gave to one row, and normalize the sum by its root mean square."""
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    is_there = column < width
    x = tl.load(x_at + row + column, mask=is_there, other=0.0)
    if HAS_DELTA:
        x = (x + tl.load(delta_at + row + column, mask=is_there, other=0.0)).to(x.dtype)
        tl.store(sum_at + row + column, x, mask=is_there)
    wide = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + eps)
    weight = tl.load(weight_at + column, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out_at + row + column, (wide * scale * weight).to(x.dtype), mask=is_there)


@triton.jit
def turn_kernel(
    qkv_at, cos_at, sin_at, norm_at, slots_at, q_at, k_at, v_at,
    eps, qkv_row, kv_slot, turned,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    HAS_NORM: tl.constexpr,
):  # fmt: skip
    """Normalize and turn one head of one token; keys and values go to their slot.

    Pairs are (i, i + turned / 2); the sine carries the sign of its place.
    """
    token, head = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, WIDTH)
    is_there = d < D
    base = qkv_at + token * qkv_row + head * D
    x = tl.load(base + d, mask=is_there, other=0.0)
    slot = tl.load(slots_at + token).to(tl.int64) * kv_slot
    if head >= HEADS + KV_HEADS:
        tl.store(v_at + slot + (head - HEADS - KV_HEADS) * D + d, x, mask=is_there)
    else:
        half = turned // 2
        partner = tl.where(d < half, d + half, d - half)
        is_turned = d < turned
        other = tl.load(base + partner, mask=is_turned, other=0.0)
        if HAS_NORM:
            wide = x.to(tl.float32)
            scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / D + eps)
            weights = norm_at + head * D
            own = tl.load(weights + d, mask=is_there, other=0.0).to(tl.float32)
            theirs = tl.load(weights + partner, mask=is_turned, other=0.0).to(tl.float32)
            other = (other.to(tl.float32) * scale * theirs).to(x.dtype)
            x = (wide * scale * own).to(x.dtype)
        cos = tl.load(cos_at + token * turned + d, mask=is_turned, other=1.0).to(tl.float32)
        sin = tl.load(sin_at + token * turned + d, mask=is_turned, other=0.0).to(tl.float32)
        out = (x.to(tl.float32) * cos + other.to(tl.float32) * sin).to(x.dtype)
        if head < HEADS:
            tl.store(q_at + (token * HEADS + head) * D + d, out, mask=is_there)
        else:
            tl.store(k_at + slot + (head - HEADS) * D + d, out, mask=is_there)


@triton.jit
def gate_kernel(gate_up_at, out_at, count, width, BLOCK: tl.constexpr, IS_GELU: tl.constexpr):
    """Multiply the second half of each row with the activation of the first."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_there = place < count
    row, column = (place // width).to(tl.int64), place % width
    gate = tl.load(gate_up_at + row * 2 * width + column, mask=is_there, other=0.0)
    up = tl.load(gate_up_at + row * 2 * width + width + column, mask=is_there, other=0.0)
    wide = gate.to(tl.float32)
    if IS_GELU:  # by its tanh, which is a sigmoid: 0.5 (1 + tanh(a)) = sigmoid(2 a)
        inner = 0.7978845608028654 * (wide + 0.044715 * wide * wide * wide)
        active = wide * tl.sigmoid(2.0 * inner)
    else:
        active = wide * tl.sigmoid(wide)
    tl.store(out_at + place, active.to(gate.dtype) * up, mask=is_there)
