from __future__ import annotations

import pytest

from cache.types import CachedReply
from gateway import semantic
from tests.support.replies import Says


def test_the_share_that_is_audited_is_drawn_by_the_request_alone():
    drawn = [semantic._is_drawn(f"req_{number}", 0.1) for number in range(5000)]

    assert 400 < sum(drawn) < 600
    assert drawn == [semantic._is_drawn(f"req_{number}", 0.1) for number in range(5000)]
    assert not any(semantic._is_drawn(f"req_{number}", 0) for number in range(500))
    assert all(semantic._is_drawn(f"req_{number}", 1) for number in range(500))


@pytest.mark.parametrize("streamed", [True, False])
def test_the_words_of_a_kept_answer_are_read_in_either_mode(streamed):
    says = Says("one two three")
    parts = tuple(says.events()) if streamed else (semantic.msgspec.json.encode(says.body()),)

    assert semantic._words(CachedReply(parts, streamed, "m", {}, 0.0, "m")) == "one two three"


def test_an_answer_without_words_has_none():
    assert semantic._words(CachedReply((b"{}",), False, "m", {}, 0.0, "m")) is None
    assert semantic._words(CachedReply((b"data: x\n\n",), True, "m", {}, 0.0, "m")) is None
