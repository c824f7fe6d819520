"""Streams cut and sliced in every way: what is read never depends on it, save the end."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProviderProtocolError
from gateway.providers.reply import ReplyReader
from gateway.sse import SseSplitter
from tests.support.chat import delta, usage_event

EVENTS = [
    delta("", role="assistant"),
    delta("h\u00e9"),
    b": ping\n\n",
    delta("llo \U0001f600"),
    delta(finish="stop"),
    usage_event(),
]
STREAM = b"".join(EVENTS) + b"data: [DONE]\n\n"
FINISHED = len(b"".join(EVENTS[:5]))


def read(*pieces):
    """Return the parts of a stream that arrived in these pieces."""
    reader, splitter = ReplyReader("m", None, 1, None), SseSplitter()
    parts = []
    for piece in pieces:
        parts += [reader.event(event) for event in splitter.feed(piece)]
    parts += [reader.event(event) for event in splitter.close()]
    reader.end()
    return [part for part in parts if part is not None]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_parts_do_not_depend_on_how_the_bytes_arrive(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]

    assert read(*pieces) == read(STREAM)


@given(st.integers(0, FINISHED - 3))
def test_stream_cut_before_its_finish_is_never_whole(cut):
    with pytest.raises(ProviderProtocolError):
        read(STREAM[:cut])


def test_stream_is_whole_from_its_finish_on():
    for cut in (FINISHED - 2, FINISHED - 1, FINISHED):
        assert read(STREAM[:cut])[-1].finish_reason == "stop"


@given(st.binary(max_size=60), st.integers(0, len(STREAM)))
def test_junk_in_a_stream_raises_nothing_but_our_error(junk, at):
    with suppress(ProviderProtocolError):
        read(STREAM[:at] + junk + STREAM[at:])
