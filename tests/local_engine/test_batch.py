"""Tokens laid end to end, and which keys each of them is given."""

from __future__ import annotations

import torch

from local_engine.batch import Batch, Segment
from local_engine.kv import KvShape, PagedKv

SHAPE = KvShape(layers=1, kv_heads=1, head_dim=2)
CACHE = PagedKv(SHAPE, 90, torch.float32, torch.device("cpu"), page_size=4)


def test_tokens_positions_and_slots_follow_the_segments() -> None:
    segments = [
        Segment([1, 2, 9], 9, (4,), unbroken=2),
        Segment([5], 3, (5,)),
        Segment([7, 3], 2, (6, 7, 8), unbroken=1),
    ]
    batch = Batch(segments, CACHE)

    assert batch.ids.tolist() == [4, 5, 6, 7, 8]
    assert batch.positions.tolist() == [9, 3, 2, 3, 4]
    assert batch.slots.tolist() == [37, 23, 30, 31, 12]
    assert batch.last.tolist() == [0, 1, 4]


def test_a_sequence_in_one_piece_is_read_where_it_is_and_a_scattered_one_gathered() -> None:
    whole, scattered = Batch(
        [Segment([3, 4], 5, (1,)), Segment([8, 2], 4, (1, 2), unbroken=1)], CACHE
    ).parts(None)

    assert (whole.slots, whole.mask) == (slice(12, 18), None)
    assert isinstance(scattered.slots, torch.Tensor)
    assert scattered.slots.tolist() == [[32, 33, 34, 35, 8, 9]]
    assert scattered.mask is not None
    assert (scattered.mask == 0).tolist() == [[[True] * 5 + [False], [True] * 6]]


def test_short_decoding_sequences_are_gathered_together_padded_with_the_null_page() -> None:
    segments = [Segment([n + 1], n % 4, (1,)) for n in range(3)] + [Segment([8, 9], 4, (1,))]
    (part,) = Batch(segments, CACHE).parts(None)

    assert (part.begin, part.sequences, part.queries) == (0, 4, 1)
    assert isinstance(part.slots, torch.Tensor)
    assert part.slots[:, [0, 3, 4]].tolist() == [[4, 7, 0], [8, 11, 0], [12, 15, 0], [32, 35, 36]]
    assert part.mask is not None
    assert (part.mask == 0).sum(-1)[:, 0].tolist() == [1, 2, 3, 5]


def test_long_decoding_sequences_stand_alone() -> None:
    segments = [Segment(range(1, 80), 300, (1,)) for _ in range(5)]

    assert [p.sequences for p in Batch(segments, CACHE).parts(None)] == [1] * 5


def test_a_window_leaves_out_what_lies_before_it() -> None:
    one, chunk = Batch(
        [Segment([0, 4, 5], 9, (1,), unbroken=1), Segment([1, 2], 5, (1, 2, 3))], CACHE
    ).parts(6)

    assert one.slots == slice(16, 22)
    assert chunk.slots == slice(4, 12)
    assert chunk.mask is not None
    assert (chunk.mask == 0).tolist()[0] == [
        [True] * 6 + [False] * 2,
        [False] + [True] * 6 + [False],
        [False] * 2 + [True] * 6,
    ]


def test_parts_are_planned_once_for_each_window() -> None:
    batch = Batch([Segment([1], 2, (1,))], CACHE)

    assert batch.parts(None) is batch.parts(None)
    assert batch.parts(2)[0].slots == slice(5, 7)
