"""Products of few rows with int8 and 4-bit weights as Triton kernels, read as the bytes they are.

A step with few rows costs what its weights take to be read. So each program takes one
block of outputs and one stretch of the inputs (split-K), and many of them read at once;
their sums meet in `merge_kernel`, in one order, so that results do not vary. One row is
summed by plain arithmetic, more by the tensor cores. Weights are never held expanded.
Tested with Triton's interpreter, not timed on a GPU.
"""

import triton
import triton.language as tl


@triton.jit
def int8_kernel(
    x_at, weight_at, scale_at, bias_at, out_at,
    rows, inputs, outputs, x_row, weight_row,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, SPLITS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Multiply rows with `[outputs, inputs]` bytes, one stretch of the inputs."""
    split = tl.program_id(2)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    is_row, is_output = row < rows, output < outputs
    share = tl.cdiv(tl.cdiv(inputs, SPLITS), DEPTH) * DEPTH
    begin = split * share
    stop = tl.minimum(begin + share, inputs)
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    weight_rows = weight_at + output.to(tl.int64)[:, None] * weight_row
    for at in range(begin, stop, DEPTH):
        column = at + tl.arange(0, DEPTH)
        is_column = column < stop
        there = is_output[:, None] & is_column[None, :]
        weight = tl.load(weight_rows + column[None, :], mask=there, other=0.0)
        if ROWS == 1:
            x = tl.load(x_at + column, mask=is_column, other=0.0).to(tl.float32)
            total += tl.sum(weight.to(tl.float32) * x[None, :], 1)[None, :]
        else:
            places = x_at + row[:, None] * x_row + column[None, :]
            x = tl.load(places, mask=is_row[:, None] & is_column[None, :], other=0.0)
            total += tl.dot(x, tl.trans(weight.to(x.dtype)), input_precision="ieee")
    places = out_at + (split * rows + row[:, None]) * outputs + output[None, :]
    if SPLITS == 1:
        total *= tl.load(scale_at + output, mask=is_output, other=0.0).to(tl.float32)[None, :]
        if HAS_BIAS:
            total += tl.load(bias_at + output, mask=is_output, other=0.0).to(tl.float32)[None, :]
    tl.store(places, total.to(out_at.dtype.element_ty), mask=is_row[:, None] & is_output[None, :])


@triton.jit
def int4_kernel(
    x_at, packed_at, pair_at, bias_at, out_at,
    rows, inputs, outputs, half, x_row,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr, SPLITS: tl.constexpr,
    GROUP: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Multiply rows with 4-bit integers, one stretch of the inputs.

    A byte of `[inputs, half]` holds outputs n (low) and n + half. DEPTH divides GROUP, so
    that the scale of a block is one number an output: x w = s x (q - 8) + z sum(x).
    """
    split = tl.program_id(2)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    low = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    is_row, is_byte = row < rows, low < half
    share = tl.cdiv(tl.cdiv(inputs, SPLITS), DEPTH) * DEPTH
    begin = split * share
    stop = tl.minimum(begin + share, inputs)
    lows = tl.zeros([ROWS, OUTPUTS], tl.float32)
    highs = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for at in range(begin, stop, DEPTH):
        column = at + tl.arange(0, DEPTH)
        byte_places = packed_at + column.to(tl.int64)[:, None] * half + low[None, :]
        packed = tl.load(byte_places, mask=is_byte[None, :], other=0)
        below = (packed & 15).to(tl.int8) - 8
        above = (packed >> 4).to(tl.int8) - 8
        pairs = pair_at + (at // GROUP * 2 * half + low) * 2
        low_scale = tl.load(pairs, mask=is_byte, other=0.0).to(tl.float32)[None, :]
        low_middle = tl.load(pairs + 1, mask=is_byte, other=0.0).to(tl.float32)[None, :]
        high_scale = tl.load(pairs + 2 * half, mask=is_byte, other=0.0).to(tl.float32)[None, :]
        high_middle = tl.load(pairs + 2 * half + 1, mask=is_byte, other=0.0).to(tl.float32)[None, :]
        if ROWS == 1:
            x = tl.load(x_at + column).to(tl.float32)
            part_low = tl.sum(below.to(tl.float32) * x[:, None], 0)[None, :]
            part_high = tl.sum(above.to(tl.float32) * x[:, None], 0)[None, :]
            lows += part_low * low_scale + tl.sum(x, 0) * low_middle
            highs += part_high * high_scale + tl.sum(x, 0) * high_middle
        else:
            places = x_at + row[:, None] * x_row + column[None, :]
            x = tl.load(places, mask=is_row[:, None], other=0.0)
            sums = tl.sum(x.to(tl.float32), 1)[:, None]
            part_low = tl.dot(x, below.to(x.dtype), input_precision="ieee")
            part_high = tl.dot(x, above.to(x.dtype), input_precision="ieee")
            lows += part_low * low_scale + sums * low_middle
            highs += part_high * high_scale + sums * high_middle
    high = low + half
    is_low, is_high = is_byte & (low < outputs), is_byte & (high < outputs)
    if SPLITS == 1 and HAS_BIAS:
        lows += tl.load(bias_at + low, mask=is_low, other=0.0).to(tl.float32)[None, :]
        highs += tl.load(bias_at + high, mask=is_high, other=0.0).to(tl.float32)[None, :]
    out_rows = out_at + (split * rows + row[:, None]) * outputs
    kind = out_at.dtype.element_ty
    tl.store(out_rows + low[None, :], lows.to(kind), mask=is_row[:, None] & is_low[None, :])
    tl.store(out_rows + high[None, :], highs.to(kind), mask=is_row[:, None] & is_high[None, :])


@triton.jit
def merge_kernel(
    parts_at, scale_at, bias_at, out_at, count, outputs,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, HAS_SCALE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Add the stretches up, in their order; then scale and bias of each output."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_there = place < count
    total = tl.zeros([BLOCK], tl.float32)
    for split in range(SPLITS):
        total += tl.load(parts_at + split * count + place, mask=is_there, other=0.0)
    output = place % outputs
    if HAS_SCALE:
        total *= tl.load(scale_at + output, mask=is_there, other=0.0).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias_at + output, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out_at + place, total.to(out_at.dtype.element_ty), mask=is_there)
