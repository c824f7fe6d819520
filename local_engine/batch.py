"""One step's tokens, laid end to end, and which keys each of them sees."""

from __future__ import annotations

import functools
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from local_engine.kv import PagedKv

# Sequences shorter than this are gathered into one product; a longer one is worth a
# product of its own, which reads its pages where they lie (measured on CPU).
_SHORT = 256
_FEW = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one sequence: its pages, first position, token ids.

    Pages from `unbroken` on lie one after another; page 0 stands for one given back.
    """

    pages: Sequence[int]
    start: int
    tokens: Sequence[int]
    unbroken: int = 0

    @property
    def end(self) -> int:
        """Return the position after the last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Part:
    """Query tokens attended together: as many `queries` of each of `sequences`.

    `slots` is where their keys lie: a slice for one sequence in one piece, else
    `[sequences, length]`. `mask` is added to the scores, `[sequences, queries, length]`.
    """

    begin: int
    sequences: int
    queries: int
    slots: slice | Tensor
    mask: Tensor | None
    _grouped: dict[int, Tensor] = field(default_factory=dict)

    def mask_for(self, group: int) -> Tensor | None:
        """Return the mask with each query repeated for the heads of its group."""
        if self.mask is None or self.queries == 1:
            return None if self.mask is None else self.mask[:, None]
        if group not in self._grouped:
            self._grouped[group] = self.mask.repeat_interleave(group, 1)[:, None]
        return self._grouped[group]


@dataclass(frozen=True, slots=True)
class Layout:
    """A batch as kernels that walk page tables want it; everything in int32.

    `decoding` segments of one token come first. `tables` are padded with the null page,
    `ends` the lengths of the sequences after this step.
    """

    decoding: int
    longest: int
    tables: Tensor
    ends: Tensor
    _chunks: tuple[tuple[int, int, int, int], ...]
    _tiles: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, segments: Sequence[Segment], cache: PagedKv) -> Layout:
        """Lay out the tables and ends of a step's segments."""
        longest = max(s.end for s in segments)
        pages = [_padded(s.pages, -(-longest // cache.page_size)) for s in segments]
        begins = itertools.accumulate((len(s.tokens) for s in segments), initial=0)
        chunks = [
            (n, begin, s.start, len(s.tokens))
            for n, (begin, s) in enumerate(zip(begins, segments, strict=False))
        ]
        decoding = sum(count == 1 for *_, count in chunks)
        ends = [s.end for s in segments]
        tables = torch.tensor(pages, dtype=torch.int32, device=cache.device)
        lengths = torch.tensor(ends, dtype=torch.int32, device=cache.device)
        return cls(decoding, longest, tables, lengths, tuple(chunks[decoding:]))

    def tiles(self, size: int) -> Tensor:
        """Cut the chunks into tiles: `[tiles, 4]` of sequence, first row, position, count."""
        if size not in self._tiles:
            rows = [
                (sequence, begin + at, start + at, min(size, count - at))
                for sequence, begin, start, count in self._chunks
                for at in range(0, count, size)
            ]
            tiles = torch.tensor(rows, dtype=torch.int32, device=self.ends.device)
            self._tiles[size] = tiles.view(-1, 4)
        return self._tiles[size]


@dataclass(frozen=True, slots=True)
class Walk:
    """Where the tokens of decoding sequences lie, for loops in C.

    A sequence's pages begin at `begins` in `pages` (int32) and it ends at `ends` (int64).
    """

    pages: array[int]
    begins: array[int]
    ends: array[int]

    @classmethod
    def of(cls, segments: Sequence[Segment], page_size: int) -> Walk:
        """Lay the pages of segments end to end."""
        pages, begins = array("i"), array("q")
        for s in segments:
            begins.append(len(pages))
            pages.extend(s.pages[: -(-s.end // page_size)])
        return cls(pages, begins, array("q", [s.end for s in segments]))


class Batch:
    """Segments as tensors; `slots` are where their own keys go, `last` their final tokens."""

    def __init__(self, segments: Sequence[Segment], cache: PagedKv) -> None:
        """Lay out segments in their order; those of one token must come first."""
        self.segments = tuple(segments)
        self._cache = cache
        self._parts: dict[int | None, tuple[Part, ...]] = {}
        device, size = cache.device, cache.page_size
        spans = [(s, range(s.start, s.end)) for s in segments]
        slots = [s.pages[p // size] * size + p % size for s, span in spans for p in span]
        sizes = torch.tensor([len(s.tokens) for s in segments])
        self.ids = torch.tensor([t for s in segments for t in s.tokens], device=device)
        self.positions = torch.tensor([p for _, span in spans for p in span], device=device)
        self.slots = torch.tensor(slots, device=device)
        self.last = (sizes.cumsum(0) - 1).to(device)

    @functools.cached_property
    def layout(self) -> Layout:
        """Return the page tables of the segments, for kernels that walk them."""
        return Layout.of(self.segments, self._cache)

    @functools.cached_property
    def walk(self) -> Walk | None:
        """Return where all tokens lie, None unless every segment is one token."""
        if any(len(s.tokens) != 1 for s in self.segments):
            return None
        return Walk.of(self.segments, self._cache.page_size)

    def parts(self, window: int | None) -> tuple[Part, ...]:
        """Return the parts for layers that see `window` tokens back; planned once a step."""
        if window not in self._parts:
            self._parts[window] = tuple(self._plan(window))
        return self._parts[window]

    def _plan(self, window: int | None) -> Iterator[Part]:
        """Cover the segments in order: short decoding ones in groups, others one by one."""
        begin = index = 0
        while index < len(self.segments):
            group = self._short_from(index)
            if len(group) > _FEW:
                yield self._gathered(begin, group, window)
                begin += len(group)
                index += len(group)
            else:
                segment = self.segments[index]
                yield self._single(begin, segment, window)
                begin += len(segment.tokens)
                index += 1

    def _short_from(self, index: int) -> tuple[Segment, ...]:
        """Return the run of short decoding segments that begins at an index."""
        end = index
        while end < len(self.segments):
            segment = self.segments[end]
            if len(segment.tokens) != 1 or segment.end > _SHORT:
                break
            end += 1
        return self.segments[index:end]

    def _gathered(self, begin: int, group: Sequence[Segment], window: int | None) -> Part:
        size = self._cache.page_size
        longest = max(s.end for s in group)
        pages = [_padded(s.pages, -(-longest // size)) for s in group]
        positions = torch.arange(longest)
        slots = (torch.tensor(pages)[:, :, None] * size + torch.arange(size)).flatten(1)
        ends = torch.tensor([s.end for s in group])[:, None]
        visible = positions < ends
        if window is not None:
            visible &= positions >= ends - window
        slots = slots[:, :longest].contiguous().to(self._cache.device)
        return Part(begin, len(group), 1, slots, self._mask(visible[:, None]))

    def _single(self, begin: int, segment: Segment, window: int | None) -> Part:
        size, count = self._cache.page_size, len(segment.tokens)
        first = 0 if window is None else max(0, segment.start + 1 - window)
        mask = None
        if count > 1:
            query = torch.arange(segment.start, segment.end)[:, None]
            position = torch.arange(first, segment.end)[None, :]
            visible = position <= query
            if window is not None:
                visible &= position > query - window
            mask = self._mask(visible[None])
        if first // size >= segment.unbroken:
            at = segment.pages[first // size] * size + first % size
            return Part(begin, 1, count, slice(at, at + segment.end - first), mask)
        pages = torch.tensor(segment.pages[first // size : -(-segment.end // size)])
        slots = (pages[:, None] * size + torch.arange(size)).flatten()
        skipped = first - first % size
        slots = slots[first - skipped : segment.end - skipped]
        return Part(begin, 1, count, slots[None].to(self._cache.device), mask)

    def _mask(self, visible: Tensor) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self._cache.dtype)
        return mask.masked_fill_(~visible, -torch.inf).to(self._cache.device)


def _padded(pages: Sequence[int], count: int) -> list[int]:
    """Return the first `count` pages, padded with the null page, whose values are finite."""
    return [*pages[:count], *(0 for _ in range(count - len(pages)))]
