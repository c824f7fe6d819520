from __future__ import annotations

import pytest
from pydantic import ValidationError

from policies.schema import Model
from tests.policies.support import SMALL, load, problems, routes

AUTO = """
  auto:
    cascade: {tiers: [tiny, large], confidence: {threshold: 0.8}}
    fallback: [mini]
    cache: {exact: {ttl: 24h}}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("machine_hour_usd: 0.40", "machine_hour_usd: 0.50"),
        ("sk-large", "sk-other"),
        ("ttl: 24h", "ttl: 1h"),
        ("threshold: 0.8}", "threshold: 0.8}, max_hold: 3s, reference: large"),
        ("    cache:", "    timeouts: {total: 9s}\n    cache:"),
    ],
)
def test_revision_stays_when_no_answer_can_change(old, new):
    text = routes(AUTO)

    assert old in text
    assert load(text).revision("auto") == load(text.replace(old, new)).revision("auto")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("demo/tiny", "demo/small"),
        ("demo/tiny", "demo/tiny, quantization: int8"),
        ("http://vllm:8000/v1", "http://other:8000/v1"),
        ("api_key: sk-large", "api_key: sk-large, model: gpt-5"),
        ("[tiny, large]", "[tiny]"),
        ("threshold: 0.8", "threshold: 0.9"),
        ("fallback: [mini]", "fallback: []"),
        ("    cache:", "    rules: [{when: {tag: x}, model: large}]\n    cache:"),
    ],
)
def test_revision_changes_with_what_changes_answers(old, new):
    text = routes(AUTO)

    assert old in text
    assert load(text).revision("auto") != load(text.replace(old, new)).revision("auto")


def test_revision_stays_when_a_release_adds_a_setting():
    class Later(Model):
        added: int = 3

    policy = load(routes(AUTO))
    later = {name: Later(**dict(model)) for name, model in policy.models.items()}
    set_otherwise = {name: Later(**dict(model), added=4) for name, model in policy.models.items()}

    assert policy.model_copy(update={"models": later}).revision("auto") == policy.revision("auto")
    changed = policy.model_copy(update={"models": set_otherwise})
    assert changed.revision("auto") != policy.revision("auto")


def test_revision_is_the_same_in_every_process_and_for_models_too():
    policy = load(routes(AUTO))

    assert policy.revision("auto") == load(routes(AUTO)).revision("auto")
    assert len({policy.revision(name) for name in ("auto", "tiny", "mini", "large")}) == 4


def test_revision_of_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        load(routes(AUTO)).revision("nope")


def test_route_wins_over_the_model_of_its_name():
    policy = load(routes("  tiny: {model: large}"))

    assert policy.route_for("tiny").tiers == ("large",)
    assert policy.route_for("mini").tiers == ("mini",)
    assert policy.route_for("none") is None


def test_reference_is_the_last_tier_unless_named():
    unnamed, named = "{tiers: [tiny, mini]}", "{tiers: [tiny], reference: large}"
    policy = load(routes(f"  a: {{cascade: {unnamed}}}\n  b: {{cascade: {named}}}"))

    assert policy.routes["a"].cascade.reference_model == "mini"
    assert policy.routes["b"].cascade.reference_model == "large"


def test_route_names_every_model_it_may_call_once():
    text = routes(
        "  r:\n    cascade: {tiers: [tiny, large], confidence: {kind: agreement, with: mini}}\n"
        "    rules: [{when: {tag: x}, tiers: [large, mini]}, {when: {}, model: tiny}]"
    )

    assert load(text).routes["r"].models == ("tiny", "large", "mini")


def test_rule_changes_the_exact_cache_only_where_it_says_so():
    text = routes(
        "  r:\n    model: tiny\n    cache: {exact: {ttl: 1h}}\n"
        "    rules:\n"
        "      - {when: {tag: a}, cache: {semantic: off}}\n"
        "      - {when: {tag: b}, cache: {exact: off}}\n"
        "      - {when: {tag: c}, cache: {exact: {ttl: 2h}}}\n"
        "      - {when: {tag: d}, model: large}\n"
    )
    route = load(text).routes["r"]

    found = [route.exact_cache(rule) for rule in (None, *route.rules)]
    assert [cache and cache.ttl for cache in found] == [3600.0, 3600.0, None, 7200.0, 3600.0]


def test_policy_cannot_be_changed():
    policy = load(routes(AUTO))

    with pytest.raises(ValidationError, match="frozen"):
        policy.version = 2


def test_models_with_all_kinds_of_prices_can_be_told_apart_by_hash():
    first, same, other = (
        Model.model_validate(
            {
                "provider": "openai",
                "price": {
                    "input_per_mtok_usd": 1,
                    "output_per_mtok_usd": 2,
                    "services": {"flex": factor},
                },
            }
        )
        for factor in (0.5, 0.5, 0.6)
    )

    assert first == same
    assert hash(first) == hash(same)
    assert len({first, same, other}) == 2


@pytest.mark.parametrize(
    "endpoint",
    ["collector:4318", "http://me:word@host", "ftp://host", "http://host?x=1", "http://"],
)
def test_a_collector_is_named_by_a_plain_url(endpoint):
    (problem,) = problems(SMALL + f"telemetry: {{traces: {{endpoint: '{endpoint}'}}}}")

    assert problem.path == "telemetry.traces.endpoint"
    assert "OTLP collector" in problem.message
    assert "word" not in problem.message
