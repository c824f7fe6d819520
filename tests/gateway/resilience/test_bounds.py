"""What guards may add to a request is set aside before it is sent."""

from __future__ import annotations

import pytest

from gateway.access.worst_case import models_of
from policies.rules import RequestFacts
from policies.schema import Route

FACTS = RequestFacts("acme", "k", "auto", stream=True, input_tokens=10)
CASCADE = {"tiers": ["small", "large"], "confidence": {"kind": "agreement", "with": "judge"}}


@pytest.mark.parametrize(
    ("guards", "calls"),
    [
        ({}, ["small", "large", "spare", "judge"]),
        ({"retries": {"attempts": 2}}, ["small", "large", "spare"] * 2 + ["judge"]),
        ({"hedge": {"after": 1}}, ["small", "large", "spare", "large", "spare", "judge"]),
    ],
    ids=["none", "retries", "hedge"],
)
def test_every_call_that_guards_may_add_is_counted(
    guards: dict[str, object], calls: list[str]
) -> None:
    route = Route.model_validate({"cascade": CASCADE, "fallback": ["spare"], **guards})

    assert models_of(route, FACTS) == calls
