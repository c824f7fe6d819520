"""Attention in plain torch, on any device: the reference for every other path.

torch's fused attention takes keys with any stride between tokens, so a sequence whose
pages lie one after another is read where it is. Only scattered pages are gathered.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.attention.spec import AttentionSpec
from local_engine.batch import Batch, Part
from local_engine.kv import PagedKv


def attend(q: Tensor, layer: int, step: Batch, cache: PagedKv, spec: AttentionSpec) -> Tensor:
    """Attend `[tokens, heads, d]` to the pages of a layer; return the same shape."""
    parts = [_attend(q, layer, part, cache, spec) for part in step.parts(spec.window)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(q: Tensor, layer: int, part: Part, cache: PagedKv, spec: AttentionSpec) -> Tensor:
    """Attend one part; the query heads that share a key head stand as queries beside it."""
    keys, values = cache.read(layer, part.slots)
    heads, size = q.shape[1:]
    group = heads // keys.shape[1]
    mine = q[part.begin : part.begin + part.sequences * part.queries]
    # [sequences, queries, kv_heads, group, d] -> [sequences, kv_heads, queries * group, d],
    # so keys are never repeated in memory.
    folded = mine.view(part.sequences, part.queries, -1, group, size).transpose(1, 2).flatten(2, 3)
    mask = part.mask_for(group)
    if spec.soft_cap is None:
        out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=spec.scale)
    else:
        out = _capped(folded, keys, values, mask, spec.scale, spec.soft_cap)
    spread = out.view(part.sequences, -1, part.queries, group, size).transpose(1, 2)
    return spread.reshape(-1, heads, size)


def _capped(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, cap: float
) -> Tensor:
    """Attend with capped scores, which torch's fused attention does not know."""
    scores = torch.matmul(q * scale, keys.transpose(-1, -2)).float()
    scores = torch.tanh(scores / cap) * cap
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(-1).to(values.dtype), values)
