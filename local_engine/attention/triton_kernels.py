"""Attention over pages as Triton kernels: one for decoding tokens, one for chunks.

Both walk a sequence's page table and never gather. Decoding splits a long context over
several programs, whose partial sums are merged by their log-sum-exp (Flash-Decoding);
a chunk's queries, folded with the heads that share a key head, form tiles that pass once
over the keys (FlashAttention). The torch path in `paged` is the reference for both.
Tested with Triton's interpreter, not timed on a GPU.
"""

import triton
import triton.language as tl


@triton.jit
def decode_kernel(
    q_at, k_at, v_at, sums_at, peaks_at, weights_at, tables_at, ends_at,
    scale, window, cap,
    q_token, q_head, kv_slot, kv_head, table_row,
    GROUP: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, KEYS: tl.constexpr,
    PADDED: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr,
):  # fmt: skip
    """Sum one stretch of the keys of one sequence for the heads of one group."""
    sequence, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    end = tl.load(ends_at + sequence)
    first = tl.maximum(end - window, 0) if HAS_WINDOW else 0
    share = tl.cdiv(tl.cdiv(end - first, SPLITS), KEYS) * KEYS
    begin = first + split * share
    stop = tl.minimum(begin + share, end)
    rows, columns = tl.arange(0, PADDED), tl.arange(0, WIDTH)
    is_row, is_column = (rows < GROUP)[:, None], (columns < D)[None, :]
    heads = (head * GROUP + rows)[:, None]
    q_places = q_at + sequence * q_token + heads * q_head + columns[None, :]
    q = tl.load(q_places, mask=is_row & is_column, other=0.0)
    peak = tl.full([PADDED], -float("inf"), tl.float32)
    weight = tl.zeros([PADDED], tl.float32)
    total = tl.zeros([PADDED, WIDTH], tl.float32)
    for at in range(begin, stop, KEYS):
        position = at + tl.arange(0, KEYS)
        is_key = position < stop
        page = tl.load(tables_at + sequence * table_row + position // PAGE, mask=is_key, other=0)
        slot = page.to(tl.int64) * PAGE + position % PAGE
        places = (slot * kv_slot + head * kv_head)[:, None] + columns[None, :]
        is_there = is_key[:, None] & is_column
        k = tl.load(k_at + places, mask=is_there, other=0.0)
        v = tl.load(v_at + places, mask=is_there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_CAP:  # tanh, by what every version of Triton has
            scores = cap * (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0)
        scores = tl.where(is_key[None, :], scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp(peak - higher)
        part = tl.exp(scores - higher[:, None])
        weight = weight * shrink + tl.sum(part, 1)
        total = total * shrink[:, None] + tl.dot(part.to(v.dtype), v, input_precision="ieee")
        peak = higher
    place = ((sequence * tl.num_programs(1) + head) * SPLITS + split) * PADDED + rows
    tl.store(peaks_at + place, peak)
    tl.store(weights_at + place, weight)
    tl.store(sums_at + place[:, None] * WIDTH + columns[None, :], total)


@triton.jit
def merge_kernel(
    sums_at, peaks_at, weights_at, out_at, out_token, out_head,
    GROUP: tl.constexpr, D: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    """Merge the stretches of one sequence and group by their log-sum-exp."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    rows, columns = tl.arange(0, PADDED), tl.arange(0, WIDTH)
    base = (sequence * tl.num_programs(1) + head) * SPLITS * PADDED + rows
    peak = tl.full([PADDED], -float("inf"), tl.float32)
    for split in range(SPLITS):
        peak = tl.maximum(peak, tl.load(peaks_at + base + split * PADDED))
    weight = tl.zeros([PADDED], tl.float32)
    total = tl.zeros([PADDED, WIDTH], tl.float32)
    for split in range(SPLITS):
        place = base + split * PADDED
        shrink = tl.exp(tl.load(peaks_at + place) - peak)
        weight += tl.load(weights_at + place) * shrink
        total += tl.load(sums_at + place[:, None] * WIDTH + columns[None, :]) * shrink[:, None]
    heads = (head * GROUP + rows)[:, None]
    places = out_at + sequence * out_token + heads * out_head + columns[None, :]
    result = (total / weight[:, None]).to(out_at.dtype.element_ty)
    tl.store(places, result, mask=(rows < GROUP)[:, None] & (columns < D)[None, :])


@triton.jit
def prefill_kernel(
    q_at, k_at, v_at, out_at, tiles_at, tables_at,
    scale, window, cap,
    q_token, q_head, kv_slot, kv_head, table_row, out_token, out_head,
    GROUP: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, KEYS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_CAP: tl.constexpr,
):  # fmt: skip
    """Attend one tile of query tokens, folded with the heads of one group."""
    tile_at, head = tiles_at + tl.program_id(0) * 4, tl.program_id(1)
    sequence, begin = tl.load(tile_at), tl.load(tile_at + 1)
    start, count = tl.load(tile_at + 2), tl.load(tile_at + 3)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    token = rows // GROUP
    is_row, is_column = (token < count)[:, None], (columns < D)[None, :]
    heads = (head * GROUP + rows % GROUP)[:, None]
    q_places = q_at + (begin + token)[:, None] * q_token + heads * q_head + columns[None, :]
    q = tl.load(q_places, mask=is_row & is_column, other=0.0)
    query = start + tl.minimum(token, count - 1)
    first = tl.maximum(start + 1 - window, 0) if HAS_WINDOW else 0
    peak = tl.full([ROWS], -1e30, tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for at in range(first, start + count, KEYS):
        position = at + tl.arange(0, KEYS)
        is_key = position < start + count
        page = tl.load(tables_at + sequence * table_row + position // PAGE, mask=is_key, other=0)
        slot = page.to(tl.int64) * PAGE + position % PAGE
        places = (slot * kv_slot + head * kv_head)[:, None] + columns[None, :]
        is_there = is_key[:, None] & is_column
        k = tl.load(k_at + places, mask=is_there, other=0.0)
        v = tl.load(v_at + places, mask=is_there, other=0.0)
        is_seen = position[None, :] <= query[:, None]
        if HAS_WINDOW:
            is_seen = is_seen & (position[None, :] > query[:, None] - window)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if HAS_CAP:
            scores = cap * (2.0 * tl.sigmoid(2.0 * scores / cap) - 1.0)
        scores = tl.where(is_seen, scores, -float("inf"))
        # A tile of keys may hold none that a query sees: the peak then stays finite.
        higher = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp(peak - higher)
        part = tl.exp(scores - higher[:, None])
        weight = weight * shrink + tl.sum(part, 1)
        total = total * shrink[:, None] + tl.dot(part.to(v.dtype), v, input_precision="ieee")
        peak = higher
    out_places = (begin + token)[:, None] * out_token + heads * out_head + columns[None, :]
    result = (total / weight[:, None]).to(out_at.dtype.element_ty)
    tl.store(out_at + out_places, result, mask=is_row & is_column)
