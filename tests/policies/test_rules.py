from __future__ import annotations

from dataclasses import replace

import pytest

from policies.rules import RequestFacts, first_match
from policies.schema import Rule

FACTS = RequestFacts(
    tenant="legal",
    key="ci",
    model="auto",
    stream=False,
    input_tokens=100,
    max_tokens=50,
    tags=frozenset({"batch", "night"}),
    has_tools=True,
    headers={"x-team": "a"},
)


def _rule(**when):
    return Rule.model_validate({"when": when, "model": "m"})


@pytest.mark.parametrize(
    "when",
    [
        {},
        {"tenant": "legal"},
        {"key": "ci"},
        {"model": "auto"},
        {"tag": "batch"},
        {"has_tools": True},
        {"has_images": False},
        {"json_schema": False},
        {"stream": False},
        {"input_tokens_over": 99},
        {"input_tokens_under": 101},
        {"max_tokens_over": 49},
        {"header": {"X-Team": "a"}},
        {"tenant": "legal", "tag": "night", "input_tokens_over": 10},
    ],
)
def test_rule_applies_when_all_its_conditions_hold(when):
    rule = _rule(**when)

    assert first_match([rule], FACTS) is rule


@pytest.mark.parametrize(
    "when",
    [
        {"tenant": "Legal"},
        {"tag": "day"},
        {"has_tools": False},
        {"stream": True},
        {"input_tokens_over": 100},
        {"input_tokens_under": 100},
        {"max_tokens_over": 50},
        {"header": {"x-team": "b"}},
        {"header": {"x-other": "a"}},
        {"tenant": "legal", "tag": "day"},
    ],
)
def test_rule_does_not_apply_when_one_condition_fails(when):
    assert first_match([_rule(**when)], FACTS) is None


def test_first_of_several_matching_rules_wins():
    rules = [_rule(tag="day"), _rule(tag="batch"), _rule()]

    assert first_match(rules, FACTS) is rules[1]


def test_request_without_a_bound_is_over_no_bound():
    assert first_match([_rule(max_tokens_over=0)], replace(FACTS, max_tokens=None)) is None
