from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.show import json_schema, masked
from tests.policies.support import load, routes

TEXT = """
  r:
    cascade: {tiers: [tiny, large], confidence: {kind: agreement, with: mini}}
access: {keys: [{name: a, key: key-of-a}]}
"""


def test_masked_policy_shows_no_secret():
    shown = masked(load(routes(TEXT)))

    assert shown["access"]["keys"] == [{"name": "a", "key": "***"}]
    assert shown["models"]["large"]["api_key"] == "***"
    assert "key-of-a" not in json.dumps(shown)


@settings(max_examples=30, deadline=None)
@given(st.text("abcdefgh", min_size=12, max_size=20))
def test_no_secret_is_in_any_way_of_printing_a_policy(secret):
    policy = load(routes(TEXT).replace("key-of-a", secret))

    assert secret not in f"{policy!r} {policy} {policy.model_dump()} {policy.model_dump_json()}"


def test_masked_policy_says_what_was_written_and_no_defaults():
    shown = masked(load(routes(TEXT)))

    assert set(shown) == {"version", "models", "routes", "access"}
    assert shown["routes"]["r"]["cascade"]["confidence"] == {"kind": "agreement", "with": "mini"}


def test_schema_offers_units_references_and_short_forms():
    definitions = json_schema()["$defs"]

    total = definitions["Timeouts"]["properties"]["total"]
    assert "(ms|s|m|h|d)" in json.dumps(total)
    assert "\\\\$\\\\{" in json.dumps(definitions["Server"]["properties"]["port"])
    assert {"type": "string"} in definitions["Cascade"]["properties"]["confidence"]["anyOf"]
    assert "with" in definitions["Confidence"]["properties"]
    assert "off" in json.dumps(definitions["Cache"]["properties"]["exact"])


def test_schema_closes_every_section():
    definitions = json_schema()["$defs"]

    sections = [each for each in definitions.values() if "properties" in each]
    assert all(section["additionalProperties"] is False for section in sections)
