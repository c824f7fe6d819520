from __future__ import annotations

import pytest

from cache.types import CachedReply
from gateway import semantic
from gateway.semantic import check_extra
from policies.problems import PolicyError
from tests.policies.support import load, routes
from tests.support.replies import Says

NAMED = routes("  r: {model: tiny, cache: {semantic: {max_error: 0.01}}}")


def test_a_policy_without_a_semantic_cache_needs_no_extra(monkeypatch):
    monkeypatch.setattr(semantic, "_NEEDED", ("no_such_package",))

    check_extra(load(routes("  r: {model: tiny}")))


def test_a_missing_extra_is_told_with_the_route_and_what_to_install(monkeypatch):
    check_extra(load(NAMED))
    monkeypatch.setattr(semantic, "_NEEDED", ("faiss", "no_such_package"))

    with pytest.raises(PolicyError) as told:
        check_extra(load(NAMED))
    words = str(told.value)
    assert "routes.r.cache.semantic" in words
    assert "found no no_such_package" in words
    assert "frugal-gateway[semantic]" in words


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
