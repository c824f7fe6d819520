"""What one process releases, as another reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.types import CachedReply
from gateway.money.usage import Usage
from gateway.released import Released, Told
from gateway.travel import ReleasedCodec
from gateway.wire import Part

codec = ReleasedCodec()
usages = st.none() | st.builds(Usage, input=st.integers(0, 10**9), output=st.integers(0, 10**9))


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=40), usages, st.booleans())
def test_a_piece_is_read_as_it_was_written(
    data: bytes, model: str, path: str, usage: Usage | None, is_usage_only: bool
) -> None:
    piece = Released(Part(data, is_usage_only=is_usage_only), Told(model, path, usage))
    read = codec.load(codec.dump(piece))

    assert (read.part.data, read.part.is_usage_only) == (data, is_usage_only)
    assert read.leader == piece.leader
    assert read.size == len(data)


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_read_as_a_piece(data: bytes) -> None:
    try:
        piece = codec.load(data)
    except ValueError:
        return
    assert isinstance(piece.part.data, bytes)


def test_the_pieces_of_a_kept_answer_end_with_the_event_about_usage() -> None:
    kept = CachedReply(
        (b"data: 1\n\n", b"data: 2\n\n"), True, "m", {"input": 3}, 0.0, "m:served",
        usage_event=b"data: 3\n\n",
    )  # fmt: skip
    pieces = codec.pieces(kept)

    assert [piece.part.is_usage_only for piece in pieces] == [False, False, True]
    assert {piece.leader for piece in pieces} == {Told("m", "m:served", Usage(input=3))}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x95\xa1\xff\xc2\xa0\xa0\xc0"])
def test_what_is_no_piece_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected a piece of an answer"):
        codec.load(data)
