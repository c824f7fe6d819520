"""Recorded steps: sizes, padding, and the same tokens as without."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from local_engine import steps
from local_engine.batch import Batch, Layout, Segment
from local_engine.engine import Engine
from local_engine.graphs import BUCKETS, DecodeGraphs, Run, StaticBatch, bucket_of, graphs_for
from local_engine.kv import KvShape, PagedKv
from local_engine.loader import LoadedModel
from local_engine.types import EngineLimits, Sampling
from tests.local_engine.support import ask, prompt_of, run

Load = Callable[[str], LoadedModel]
CPU = torch.device("cpu")


@given(rows=st.integers(1, 600))
def test_the_smallest_size_with_room_is_taken(rows: int) -> None:
    bucket = bucket_of(rows)

    assert (bucket is None) == (rows > BUCKETS[-1])
    if bucket is not None:
        assert rows <= bucket
        assert all(other < rows for other in BUCKETS if other < bucket)


@given(
    lengths=st.lists(st.lists(st.integers(1, 70), min_size=1, max_size=8), min_size=1, max_size=4)
)
def test_static_tensors_say_what_a_batch_says_however_they_were_filled_before(
    lengths: list[list[int]],
) -> None:
    cache = PagedKv(KvShape(1, 1, 4), 60, torch.float32, CPU)
    static = StaticBatch(8, 6, cache)
    for ends in lengths:
        pages = itertools.count(1)
        segments = [
            Segment([next(pages) for _ in range(-(-end // 16))], end - 1, (end * 3,), 0)
            for end in ends
        ]
        static.fill(segments)
        batch, count = Batch(segments, cache), len(segments)
        layout, width = Layout.of(segments, cache), Layout.of(segments, cache).tables.shape[1]

        assert torch.equal(static.ids[:count], batch.ids)
        assert torch.equal(static.positions[:count], batch.positions)
        assert torch.equal(static.slots[:count], batch.slots)
        assert torch.equal(static.layout.tables[:count, :width], layout.tables)
        assert torch.equal(static.layout.ends[:count], layout.ends)
        assert static.slots[count:].eq(0).all()
        assert static.layout.tables[count:, :width].eq(0).all()
        assert static.layout.ends[count:].eq(1).all()


def test_a_step_that_cannot_be_recorded_runs_as_it_comes(
    loaded: Load, caplog: pytest.LogCaptureFixture
) -> None:
    decoder = loaded("llama").decoder
    cache = PagedKv(KvShape.of(decoder.config), 4, torch.float32, CPU)

    def refuses(step: Run) -> Run:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = DecodeGraphs(decoder, cache, 64, refuses)

    assert graphs.forward([Segment([1], 3, (7,))]) is None
    assert graphs.forward([Segment([1], 3, (7,))] * 2) is None
    assert caplog.text.count("not permitted") == 1
    assert graphs.recorded == ()


def test_more_rows_than_are_recorded_run_as_they_come(loaded: Load) -> None:
    decoder = loaded("llama").decoder
    cache = PagedKv(KvShape.of(decoder.config), 4, torch.float32, CPU)
    graphs = DecodeGraphs(decoder, cache, 64, lambda step: step)

    assert graphs.forward([Segment([1], 3, (7,))] * (BUCKETS[-1] + 1)) is None


def test_nothing_is_recorded_on_a_cpu(loaded: Load) -> None:
    decoder = loaded("llama").decoder
    cache = PagedKv(KvShape.of(decoder.config), 4, torch.float32, CPU)

    assert graphs_for(decoder, cache, 64, has_adapters=False) is None


async def test_answers_are_the_same_when_steps_are_played(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU a recorded step is computed again, from the same static tensors."""
    from tests.local_engine.interpreter import require_interpreter

    require_interpreter()
    from local_engine import model as decoder_module
    from local_engine.attention import triton_paged

    def by_kernels(layer, q, k, v, step, cache, spec):  # type: ignore[no-untyped-def]
        cache.write(layer, step.slots, k, v)
        return triton_paged.attend(q, layer, step, cache, spec).flatten(1)

    made: list[DecodeGraphs] = []

    def recording(decoder, cache, context, *, has_adapters):  # type: ignore[no-untyped-def]
        made.append(DecodeGraphs(decoder, cache, context, lambda step: step))
        return made[-1]

    requests = [
        ask(str(n), prompt_of(n, 9 + 7 * n), 6 + n, Sampling(temperature=0.7, seed=n))
        for n in range(3)
    ]
    limits = EngineLimits(max_batch=4, max_context=128)
    async with Engine(loaded("llama"), limits) as plain:
        wanted = [(await run(plain, r))[0] for r in requests]
    monkeypatch.setattr(decoder_module, "write_and_attend", by_kernels)
    monkeypatch.setattr(steps, "graphs_for", recording)
    async with Engine(loaded("llama"), limits) as engine:
        found = await asyncio.gather(*(run(engine, r) for r in requests))

    assert [[t.id for t in tokens] for tokens, _ in found] == [[t.id for t in w] for w in wanted]
    assert set(made[0].recorded) >= {1, 4}
