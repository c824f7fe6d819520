from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sse import MAX_EVENT, Event, SseError, SseSplitter


def split(*chunks: bytes) -> list[Event]:
    splitter = SseSplitter()
    return [event for chunk in chunks for event in splitter.feed(chunk)] + splitter.close()


def payloads(*chunks: bytes) -> list[bytes]:
    return [event.data for event in split(*chunks)]


def test_plain_event_keeps_its_own_bytes():
    assert split(b'data: {"a":1}\n\n') == [Event(b'data: {"a":1}\n\n', b'{"a":1}')]


def test_several_events_in_one_chunk_come_in_order():
    assert payloads(b"data: 1\n\ndata: 2\n\ndata: 3\n\n") == [b"1", b"2", b"3"]


def test_event_is_held_until_its_blank_line():
    splitter = SseSplitter()

    assert splitter.feed(b"data: 1\n") == []
    assert splitter.feed(b"\ndata") == [Event(b"data: 1\n\n", b"1")]


def test_last_event_without_blank_line_comes_at_the_close():
    assert payloads(b"data: 1\n\ndata: 2") == [b"1", b"2"]
    assert payloads(b"data: 1\n\ndata: 2\n") == [b"1", b"2"]


def test_comments_and_events_without_data_are_none():
    assert payloads(b": ping\n\n", b"event: x\n\n", b"\n\n\n", b"id: 4\nretry: 1\n\n") == []


def test_comment_within_an_event_is_dropped_from_its_bytes():
    assert split(b": hello\ndata: 1\n\n") == [Event(b"data: 1\n\n", b"1")]


def test_lines_of_a_payload_are_joined_to_one():
    assert split(b'data: {"a":\ndata: 1}\n\n') == [Event(b'data: {"a": 1}\n\n', b'{"a": 1}')]


def test_space_after_the_colon_is_optional_and_only_one_is_taken():
    assert payloads(b"data:1\n\n", b"data:  2\n\n") == [b"1", b" 2"]


def test_event_name_is_kept():
    assert split(b"event: error\ndata: 1\n\n")[0].name == b"error"


def test_byte_order_mark_is_skipped_even_when_cut():
    assert payloads(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]
    assert payloads(b"\xef", b"\xbb", b"\xbfdata: 1\n\n") == [b"1"]
    assert payloads(b"\xef\xbb\xbfdata: 1") == [b"1"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_legal_line_end_is_understood(end):
    text = b"data: 1" + end + end + b": c" + end + b"data: 2" + end + b"id: 3" + end + end

    assert payloads(text) == [b"1", b"2"]
    assert payloads(*[text[i : i + 1] for i in range(len(text))]) == [b"1", b"2"]


def test_event_that_ends_in_a_lone_cr_does_not_wait_for_more():
    assert SseSplitter().feed(b"data: 1\r\r") == [Event(b"data: 1\n\n", b"1")]


def test_crlf_cut_in_two_is_one_line_end():
    splitter = SseSplitter()

    assert splitter.feed(b"data: 1\r") == []
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\r") == [Event(b"data: 1\n\n", b"1")]
    assert splitter.feed(b"\ndata: 2\r\n\r\n") == [Event(b"data: 2\n\n", b"2")]


def test_event_of_the_greatest_size_passes_in_any_pieces():
    text = b"data: " + b"x" * (MAX_EVENT - 6) + b"\n\n"
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]

    assert len(payloads(text)[0]) == MAX_EVENT - 6
    assert len(payloads(*pieces)[0]) == MAX_EVENT - 6


def test_larger_event_is_refused_before_its_end():
    splitter = SseSplitter()
    splitter.feed(b"x" * MAX_EVENT)
    with pytest.raises(SseError, match="at most"):
        splitter.feed(b"x")
    with pytest.raises(SseError, match="at most"):
        SseSplitter().feed(b"data: " + b"x" * MAX_EVENT + b"\n\n")


lines = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": c", b"event: e", b"id: 1", b"junk", b"data: \xc3\xa9", b""]
)


@given(st.lists(lines, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_events_do_not_depend_on_where_the_bytes_are_cut(parts, end, data):
    text = end.join(parts) + end
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    assert split(*pieces) == split(text)


@given(st.lists(st.sampled_from([b"1", b'{"a":"\xc3\xa9"}', b"[DONE]"]), max_size=6))
def test_whatever_the_line_ends_the_same_events_come_out(data):
    texts = [b"".join(b"data: " + d + end + end for d in data) for end in (b"\n", b"\r\n", b"\r")]

    assert split(texts[0]) == split(texts[1]) == split(texts[2])
