"""One step's tokens, laid end to end, and how each part attends to the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one sequence: its cache row, first position, token ids."""

    row: int
    start: int
    tokens: tuple[int, ...]

    @property
    def end(self) -> int:
        """Return the position after the last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments as tensors. `last` indexes the final token of each segment."""

    ids: Tensor
    positions: Tensor
    rows: Tensor
    last: Tensor
    parts: tuple[DecodePart | ChunkPart, ...]
    longest: int

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> Batch:
        """Lay out segments in their order; those of one token must come first."""
        singles = sum(len(s.tokens) == 1 for s in segments)
        sizes = [len(s.tokens) for s in segments]
        ids = [t for s in segments for t in s.tokens]
        positions = [p for s in segments for p in range(s.start, s.end)]
        rows = [s.row for s in segments for _ in s.tokens]
        ends = torch.tensor(sizes).cumsum(0)
        offsets = [0, *ends.tolist()]
        parts: list[DecodePart | ChunkPart] = []
        if singles:
            parts.append(DecodePart.of(segments[:singles], device))
        for index in range(singles, len(segments)):
            parts.append(ChunkPart.of(offsets[index], segments[index], device))
        return cls(
            ids=torch.tensor(ids, device=device),
            positions=torch.tensor(positions, device=device),
            rows=torch.tensor(rows, device=device),
            last=(ends - 1).to(device),
            parts=tuple(parts),
            longest=max(s.end for s in segments),
        )


@dataclass(frozen=True, slots=True)
class DecodePart:
    """One query token for each of several sequences, attended in one padded product.

    Rows of the cache in use by nobody in this part, but below the highest one used, ride
    along and are dropped: cheaper than copying the others together.
    """

    begin: int
    count: int
    height: int
    length: int
    rows: Tensor | None
    mask: Tensor

    @classmethod
    def of(cls, segments: Sequence[Segment], device: torch.device) -> DecodePart:
        """Plan the attention of segments of one token, sorted by row."""
        rows = [s.row for s in segments]
        height, length = max(rows) + 1, max(s.end for s in segments)
        lengths = torch.ones(height, dtype=torch.int64)
        lengths[rows] = torch.tensor([s.end for s in segments])
        visible = torch.arange(length)[None, :] < lengths[:, None]
        mask = torch.zeros(height, length).masked_fill_(~visible, -torch.inf)
        is_dense = rows == list(range(height))
        return cls(
            begin=0,
            count=len(rows),
            height=height,
            length=length,
            rows=None if is_dense else torch.tensor(rows, device=device),
            mask=mask[:, None, None, :].to(device),
        )

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend `[count, heads, d]` to the cache of a layer; return the same shape."""
        k = keys[: self.height, :, : self.length]
        v = values[: self.height, :, : self.length]
        grouped = q.view(len(q), k.shape[1], -1, q.shape[-1]) * q.shape[-1] ** -0.5
        if self.rows is not None:
            padded = grouped.new_zeros(self.height, *grouped.shape[1:])
            grouped = padded.index_copy_(0, self.rows, grouped)
        scores = torch.matmul(grouped, k.transpose(-1, -2)).float() + self.mask
        out = torch.matmul(scores.softmax(-1).to(v.dtype), v).flatten(1, 2)
        return out if self.rows is None else out.index_select(0, self.rows)


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """Consecutive query tokens of one sequence, seeing all before them."""

    begin: int
    count: int
    row: int
    end: int
    visible: Tensor

    @classmethod
    def of(cls, begin: int, segment: Segment, device: torch.device) -> ChunkPart:
        """Plan the attention of a segment whose tokens begin at `begin` of the batch."""
        query = torch.arange(segment.start, segment.end, device=device)
        visible = torch.arange(segment.end, device=device)[None, :] <= query[:, None]
        return cls(begin, len(segment.tokens), segment.row, segment.end, visible)

    def attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend `[count, heads, d]` to the cache of a layer; return the same shape."""
        k = keys[self.row, :, : self.end]
        v = values[self.row, :, : self.end]
        # The query heads that share a key head stand as further queries beside it,
        # so keys are never repeated in memory.
        heads, size, kv_heads = q.shape[1], q.shape[2], k.shape[0]
        group = heads // kv_heads
        folded = q.view(-1, kv_heads, group, size).permute(1, 2, 0, 3).flatten(1, 2)
        mask = self.visible.repeat(group, 1)
        out = F.scaled_dot_product_attention(folded[None], k[None], v[None], attn_mask=mask)
        spread = out.view(kv_heads, group, -1, size)
        return spread.permute(2, 0, 1, 3).reshape(-1, heads, size)
