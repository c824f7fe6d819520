from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cache.fingerprint import IGNORED, PARTITION_BYTES, fingerprint, partition

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
members = st.sampled_from(["model", "messages", "seed", "n", "stop", "tools", "temperature"])
bodies = st.dictionaries(members | texts, values, max_size=5)
BODY: dict[str, Any] = {
    "model": "auto",
    "messages": [{"role": "user", "content": "Which is the largest planet?"}],
    "temperature": 0.2,
    "max_tokens": 64,
    "seed": 7,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "response_format": {"type": "text"},
}


def of(body: dict[str, Any], tenant: str = "t", route: str = "auto", revision: str = "1") -> bytes:
    return fingerprint(tenant, route, revision, body)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        rng.shuffle(names)
        return {name: shuffled(value[name], rng) for name in names}
    return [shuffled(v, rng) for v in value] if isinstance(value, list) else value


def relevant(body: dict[str, Any]) -> bytes:
    """Write a body so that equal texts mean equal requests: 1 is not 1.0, nor True."""
    kept = {name: value for name, value in body.items() if name not in IGNORED}
    return repr(ordered(kept)).encode("utf-8", "surrogatepass")


def ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return ("object", [(name, ordered(value[name])) for name in sorted(value)])
    return ["array", *map(ordered, value)] if isinstance(value, list) else value


def test_a_fingerprint_has_32_bytes_and_begins_with_its_tenants_partition() -> None:
    assert len(of(BODY)) == 32
    assert of(BODY, tenant="acme").startswith(partition("acme"))
    assert len(partition("acme")) == PARTITION_BYTES


@given(bodies, st.randoms(use_true_random=False))
def test_neither_key_order_nor_whitespace_matters(body: dict[str, Any], rng: random.Random) -> None:
    compact = msgspec.json.encode(shuffled(body, rng))
    spread = msgspec.json.format(compact, indent=3)

    assert of(msgspec.json.decode(compact)) == of(msgspec.json.decode(spread))
    assert of(shuffled(body, rng)) == of(body)


@given(bodies, st.dictionaries(st.sampled_from(sorted(IGNORED)), values))
def test_members_that_do_not_change_the_answer_are_ignored(
    body: dict[str, Any], more: dict[str, Any]
) -> None:
    assert of(body | more) == of({k: v for k, v in body.items() if k not in more})


@given(bodies, bodies)
def test_requests_that_differ_have_different_fingerprints(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert (of(one) == of(other)) == (relevant(one) == relevant(other))


@given(bodies, members | texts, values)
def test_one_member_more_or_otherwise_is_another_request(
    body: dict[str, Any], name: str, value: Any
) -> None:
    assume(name not in IGNORED)
    changed = body | {name: value}

    assert (of(changed) == of(body)) == (relevant(changed) == relevant(body))


places = st.tuples(texts, texts, texts)


@given(places, places, bodies)
def test_tenant_route_and_revision_never_run_into_each_other(
    one: tuple[str, str, str], other: tuple[str, str, str], body: dict[str, Any]
) -> None:
    assert (fingerprint(*one, body) == fingerprint(*other, body)) == (one == other)


@given(st.lists(texts, min_size=3, max_size=3), st.integers(1, 4))
def test_moving_text_between_the_parts_changes_the_fingerprint(
    parts: list[str], shift: int
) -> None:
    whole = "".join(parts)
    moved = (whole[:shift], whole[shift:], "")

    assert (fingerprint(*parts, BODY) == fingerprint(*moved, BODY)) == (tuple(parts) == moved)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": None},
        {"seed": 8},
        {"temperature": 0.3},
        {"logprobs": True},
        {"n": 2},
        {"top_logprobs": 0},
        {"unheard_of": {}},
        {"model": "other"},
        {"messages": [{"role": "user", "content": "Which is the largest planet? "}]},
        {"messages": [{"role": "user", "content": "Which is the largest planet?", "name": "x"}]},
    ],
)
def test_whatever_may_change_the_answer_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert of(BODY | change) != of(BODY)


def test_a_null_member_is_not_a_missing_one() -> None:
    without = {name: value for name, value in BODY.items() if name != "seed"}

    assert of(without | {"seed": None}) != of(without)


def test_a_text_is_not_the_number_it_spells() -> None:
    assert of({"seed": "1"}) != of({"seed": 1})
    assert of({"seed": True}) != of({"seed": 1})
    assert of({"seed": None}) != of({"seed": "null"})


def test_ignored_names_count_deeper_down() -> None:
    assert of({"messages": [{"user": "a"}]}) != of({"messages": [{"user": "b"}]})


def test_the_request_itself_is_left_as_it_was() -> None:
    body = BODY | {"stream": True, "user": "u"}
    before = msgspec.json.encode(body)
    of(body)

    assert msgspec.json.encode(body) == before
