from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cache_streams import Stream
from bench.cache_traces import Arrival, main, questions, read_trace, replayed

TERMS = argparse.Namespace(
    max_error=0.01, audit=0.0, input_usd=1.0, output_usd=10.0, usd_per_cpu_hour=0.0,
    embedding_cpu_ms=0.0,
)  # fmt: skip


def words(*said: tuple[str, str, int]) -> Stream:
    """Return questions: words, what they ask for, and which of some directions they take."""
    ways = np.random.default_rng(0).normal(size=(4, 384)).astype(np.float32)
    rows = (ways / np.linalg.norm(ways, axis=1, keepdims=True))[[way for _, _, way in said]]
    return Stream("words", [text for text, _, _ in said], [asks for _, asks, _ in said], rows)


def alone(count: int, prompt: int = 20) -> list[Arrival]:
    return [Arrival(float(n), prompt, 10, None) for n in range(count)]


def test_bench_without_data_says_why_it_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "skipped: --data" in capsys.readouterr().out


def test_a_request_is_a_repeat_only_where_all_blocks_and_the_length_are_equal() -> None:
    told = [
        Arrival(float(n), prompt, 1, blocks)
        for n, (prompt, blocks) in enumerate(
            [(600, (1, 2)), (600, (1, 2)), (610, (1, 2)), (700, (1, 3)), (1100, (1, 2, 4))]
        )
    ]
    found = list(questions(told))

    assert [each.is_repeat for each in found] == [False, True, False, False, False]
    assert [each.scope for each in found[3:]] == [(1,), (1, 2)]
    assert [each.new for each in found[3:]] == [700 - 512, 1100 - 1024]


async def test_a_hit_saves_what_its_own_tokens_would_have_cost() -> None:
    asked = "how do i close my account"
    row = await replayed("t", alone(2), words((asked, "a", 0), (asked, "a", 0)), TERMS)

    assert (row.requests, row.readable, row.semantic, row.wrong) == (2, 2, 1, 0)
    assert row.saved == pytest.approx(row.cost / 2) == pytest.approx(120e-6)
    assert row.net == pytest.approx(row.saved)


async def test_an_answer_to_something_else_counts_as_wrong() -> None:
    asked = "how do i close my account"
    row = await replayed("t", alone(2), words((asked, "a", 0), (asked, "b", 0)), TERMS)

    assert (row.semantic, row.wrong) == (1, 1)


async def test_questions_do_not_meet_across_conversations_nor_where_they_are_too_long() -> None:
    said = words(*[("how do i close my account", "a", 0)] * 4)
    apart = [Arrival(0.0, 20, 1, (1,)), Arrival(1.0, 540, 1, (1, 2))]

    assert (await replayed("t", apart, said, TERMS)).semantic == 0
    assert (await replayed("t", alone(2, prompt=300), said, TERMS)).readable == 0


def test_a_table_without_single_requests_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "dev.parquet"
    pq.write_table(pa.table({"rate": [1.0]}), path)
    assert read_trace(path, 10) == []

    pq.write_table(
        pa.table({"t_s": [2.0, 1.0], "prompt_tokens": [3, 4], "completion_tokens": [5, 6]}), path
    )
    assert read_trace(path, 10) == [Arrival(1.0, 4, 6, None), Arrival(2.0, 3, 5, None)]
