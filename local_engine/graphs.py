"""Decoding steps recorded once and played again: on a GPU, launches cost more than small work.

A step is recorded for each of a few batch sizes, when it first comes, on tensors that stay
where they are; a smaller batch is padded with rows that nobody reads. Chunks of prompts,
adapters and mixtures run as they come, since their work differs from step to step.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from local_engine.attention import has_kernels
from local_engine.batch import Batch, Layout, Segment
from local_engine.kv import PagedKv
from local_engine.model import Decoder

log = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

Run = Callable[[], Tensor]


def bucket_of(rows: int) -> int | None:
    """Return the smallest recorded size with room for so many rows, None above the largest."""
    place = bisect.bisect_left(BUCKETS, rows)
    return BUCKETS[place] if place < len(BUCKETS) else None


class StaticBatch(Batch):
    """One decoding token of each of so many rows, in tensors that stay where they are.

    Rows that are not filled read and write the null page: what comes of them is finite
    and nobody's.
    """

    def __init__(self, rows: int, pages: int, cache: PagedKv) -> None:
        """Make room for rows of sequences of up to so many pages."""
        super().__init__([], cache)
        device = cache.device
        self._rows = rows
        self._whole = torch.zeros(3, rows, dtype=torch.long, device=device)
        self.ids, self.positions, self.slots = self._whole.unbind(0)
        self.last = torch.arange(rows, device=device)
        tables = torch.zeros(rows, pages, dtype=torch.int32, device=device)
        ends = torch.ones(rows, dtype=torch.int32, device=device)
        self.layout = Layout(rows, pages * cache.page_size, tables, ends, ())
        self.walk = None  # what it is filled with changes on the device alone

    def fill(self, segments: Sequence[Segment]) -> None:
        """Take the tokens of a step; each segment has one."""
        size, spare = self._cache.page_size, self._rows - len(segments)
        at = [s.start for s in segments]
        slots = [s.pages[p // size] * size + p % size for s, p in zip(segments, at, strict=True)]
        zeros = [0] * spare
        lists = [[*(s.tokens[0] for s in segments), *zeros], [*at, *zeros], [*slots, *zeros]]
        self._whole.copy_(torch.tensor(lists))
        self.layout.ends.copy_(
            torch.tensor([*(p + 1 for p in at), *([1] * spare)], dtype=torch.int32)
        )
        width = max(p // size for p in at) + 1
        tables = [[*s.pages[:width], *([0] * (width - len(s.pages)))] for s in segments]
        tables += [[0] * width] * spare
        self.layout.tables[:, :width].copy_(torch.tensor(tables, dtype=torch.int32))


class DecodeGraphs:
    """The recorded steps of one decoder and cache."""

    def __init__(
        self, decoder: Decoder, cache: PagedKv, context: int, record: Callable[[Run], Run]
    ) -> None:
        """Take what records: it is given a step, and returns what plays it again."""
        self._decoder = decoder
        self._cache = cache
        self._pages = -(-context // cache.page_size)
        self._record = record
        self._steps: dict[int, tuple[StaticBatch, Run]] = {}
        self._is_broken = False

    @property
    def recorded(self) -> tuple[int, ...]:
        """Return the batch sizes that were recorded so far."""
        return tuple(sorted(self._steps))

    def forward(self, segments: Sequence[Segment]) -> Tensor | None:
        """Return the logits of a step of one token each, None where it has to run as it comes.

        They stand until the next call.
        """
        bucket = bucket_of(len(segments))
        if bucket is None or self._is_broken:
            return None
        if bucket not in self._steps and not self._add(bucket):
            return None
        batch, play = self._steps[bucket]
        batch.fill(segments)
        return play()[: len(segments)]

    def _add(self, bucket: int) -> bool:
        batch = StaticBatch(bucket, self._pages, self._cache)
        try:
            play = self._record(lambda: self._decoder.forward(batch, self._cache, batch.last))
        except RuntimeError as exc:  # what CUDA throws where a step cannot be recorded
            log.warning("steps are not recorded, since one of %d could not be: %s", bucket, exc)
            self._is_broken = True
            return False
        self._steps[bucket] = (batch, play)
        return True


def graphs_for(
    decoder: Decoder, cache: PagedKv, context: int, *, has_adapters: bool
) -> DecodeGraphs | None:
    """Return what records the steps of a decoder, None where they cannot or need not be."""
    is_same_every_time = decoder.config.experts is None and not has_adapters and cache.is_plain
    if decoder.device.type != "cuda" or not is_same_every_time or not has_kernels(decoder.device):
        return None
    return DecodeGraphs(decoder, cache, context, CudaRecorder())


class CudaRecorder:
    """Record steps as CUDA graphs that share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Run a step until its kernels are compiled and tuned, and record it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it bare
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may ask the device how it stands meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = run()

        def play() -> Tensor:
            graph.replay()
            return logits

        return play
