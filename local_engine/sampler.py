"""From logits to the next token, and what the model thought of it.

What is reported is taken from the raw logits. What is drawn comes after penalties,
bias, the form asked for, temperature and cut-offs, in that order. The random number of
a draw depends on nothing but the request's seed and the position, so neighbours in the
batch, chunking and preemption cannot change an answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from local_engine.types import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """What the sampler must know of one row: parameters, position, tokens so far.

    `counts` counts generated tokens; `seen` holds these and the prompt's. `mask` has one
    bit for each token, the lowest first, set where it may come.
    """

    sampling: Sampling
    position: int
    counts: Mapping[int, int]
    seen: frozenset[int] | set[int]
    top: int = 0
    mask: bytes | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn token and the raw distribution around it; forced where nothing else was allowed."""

    token: int
    logprob: float
    entropy: float
    margin: float
    top: tuple[tuple[int, float], ...]
    is_forced: bool = False


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[Drawn | None]:
    """Draw one token for each row of fp32 logits `[rows, vocab]`; None for one not finite."""
    chosen = choose(logits, draws)
    logprobs = torch.log_softmax(logits, dim=-1)
    own = logprobs.gather(1, chosen[:, None])[:, 0]
    # A token that cannot come has -inf; times its probability of zero that is no number.
    entropy = -(logprobs.exp() * logprobs.clamp_min(-1e4)).sum(-1)
    best = logprobs.topk(min(max(2, *(d.top for d in draws)), logits.shape[-1]), dim=-1)
    columns = (chosen, own, entropy, best.values, best.indices)
    rows = zip(*_lists(columns), draws, strict=True)
    return [_drawn(*row) for row in rows]


def _lists(columns: Sequence[Tensor]) -> Iterator[list[Any]]:
    """Return columns as lists; from a GPU they come in one piece, since each waits for it."""
    if not columns[0].is_cuda:
        yield from (column.tolist() for column in columns)
        return
    kinds = [(c.is_floating_point(), c.ndim == 1) for c in columns]
    # Token ids are exact in double precision.
    flat = [c.double().view(len(c), -1) for c in columns]
    host = torch.cat(flat, dim=1).cpu()
    parts = torch.split(host, [f.shape[1] for f in flat], dim=1)
    for part, (is_float, is_flat) in zip(parts, kinds, strict=True):
        found = part if is_float else part.long()
        yield (found[:, 0] if is_flat else found).tolist()


def _drawn(
    token: int, logprob: float, entropy: float, values: list[float], ids: list[int], draw: Draw
) -> Drawn | None:
    if not math.isfinite(values[0]):
        return None
    top = tuple(zip(ids[: draw.top], values[: draw.top], strict=True))
    margin = values[0] - values[min(1, len(values) - 1)]
    is_forced = draw.mask is not None and int.from_bytes(draw.mask, "little").bit_count() == 1
    return Drawn(token, logprob, entropy, margin, top, is_forced)


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that belongs to a seed and a position."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Pick a token id for each row of logits `[rows, vocab]`."""
    adjusted = logits
    for row, draw in enumerate(draws):
        s = draw.sampling
        if s.reads_history or s.logit_bias or draw.mask is not None:
            if adjusted is logits:
                adjusted = logits.clone()
            _adjust(adjusted[row], draw)
    # The first of the largest, as argmax gives it, in less than half its time on a CPU.
    chosen = adjusted.max(-1).indices
    rows = [n for n, d in enumerate(draws) if not d.sampling.is_greedy]
    if rows:
        chosen[rows] = _draw(adjusted[rows], [draws[n] for n in rows])
    return chosen


def _adjust(row: Tensor, draw: Draw) -> None:
    """Apply repetition, presence and frequency penalties, bias and mask, in place."""
    s = draw.sampling
    if s.repetition_penalty != 1.0 and draw.seen:
        ids = torch.tensor(sorted(draw.seen), device=row.device)
        values = row[ids]
        rho = s.repetition_penalty
        row[ids] = torch.where(values > 0, values / rho, values * rho)
    if draw.counts and (s.presence_penalty or s.frequency_penalty):
        ids = torch.tensor(list(draw.counts), device=row.device)
        counts = torch.tensor(list(draw.counts.values()), device=row.device, dtype=row.dtype)
        row[ids] -= s.presence_penalty + s.frequency_penalty * counts
    for token, bias in s.logit_bias.items():
        if token < row.shape[0]:
            row[token] += bias
    if draw.mask is not None:
        row.masked_fill_(~_unpacked(draw.mask, row), -math.inf)


def _unpacked(mask: bytes, row: Tensor) -> Tensor:
    """Return one truth value for each token of a row; those past the mask's end are false."""
    packed = torch.frombuffer(bytearray(mask), dtype=torch.uint8).to(row.device)
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=row.device)) & 1
    allowed = torch.zeros(row.shape, dtype=torch.bool, device=row.device)
    count = min(len(row), len(mask) * 8)
    allowed[:count] = bits.flatten()[:count].bool()
    return allowed


def _draw(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Draw from tempered, cut-off distributions by inverting their cumulative sums."""
    temperatures = torch.tensor(
        [d.sampling.temperature for d in draws], device=logits.device, dtype=logits.dtype
    )
    probs = torch.softmax(logits / temperatures[:, None], dim=-1)
    for row, draw in enumerate(draws):
        _cut(probs[row], draw.sampling)
    # In double precision, since the sum runs over the whole vocabulary.
    sums = probs.double().cumsum(-1)
    noise = torch.tensor(
        [uniform(d.sampling.seed, d.position) for d in draws],
        device=logits.device,
        dtype=torch.float64,
    )
    picked = torch.searchsorted(sums, (noise * sums[:, -1])[:, None], right=True)[:, 0]
    return picked.clamp_max(logits.shape[-1] - 1)


def _cut(probs: Tensor, s: Sampling) -> None:
    """Zero what top-k, top-p and min-p leave out of one row, in that order, in place."""
    if 0 < s.top_k < probs.shape[0]:
        floor = probs.topk(s.top_k).values[-1]
        probs[probs < floor] = 0.0
    if s.top_p < 1.0:
        ordered, ids = probs.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        is_cut = before >= s.top_p * ordered.sum()
        is_cut[0] = False
        probs[ids[is_cut]] = 0.0
    if s.min_p > 0.0:
        probs[probs < s.min_p * probs.max()] = 0.0
