from __future__ import annotations

import pytest

from tests.policies.support import load, routes, told

TWO = "deployments: [{base_url: https://a/v1, weight: 3}, {base_url: https://b/v1, api_key: k}]"


def _policy(model):
    return f"version: 1\nmodels:\n  m: {{{model}}}"


def test_deployments_take_the_place_of_an_address():
    model = load(_policy(f"provider: vllm, {TWO}, balance: weight")).models["m"]

    assert [(d.base_url, d.weight) for d in model.deployments] == [
        ("https://a/v1", 3.0),
        ("https://b/v1", 1.0),
    ]
    assert load(_policy(f"provider: openai, {TWO}"))


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            f"provider: vllm, base_url: https://c, {TWO}",
            "models.m.base_url: 'base_url' means nothing beside deployments",
        ),
        (
            "provider: vllm, deployments: [{base_url: https://a}, {base_url: https://a}]",
            "models.m.deployments[1].base_url: this deployment stands twice",
        ),
        (
            "provider: vllm, deployments: [{base_url: a}]",
            "models.m.deployments[0].base_url: expected an http:// or https:// URL",
        ),
        (
            "provider: vllm, deployments: [{base_url: https://a, api_key: 'a b'}]",
            "models.m.deployments[0].api_key: expected visible ASCII",
        ),
        (
            "provider: vllm, deployments: [{base_url: https://a, weight: 0}]",
            "models.m.deployments[0].weight: expected more than 0, found 0",
        ),
        ("provider: vllm, deployments: []", "models.m.base_url: provider vllm needs it"),
        (
            "provider: vllm, base_url: https://a, balance: weight",
            "models.m.balance: 'balance' means nothing without several deployments",
        ),
        (
            f"provider: local, checkpoint: demo/tiny, {TWO}",
            "models.m.deployments: 'deployments' means nothing to provider local",
        ),
    ],
)
def test_deployments_that_cannot_work_are_refused_by_name(model, fault):
    assert any(fault in line for line in told(_policy(model)))


def test_a_change_of_weights_and_retries_keeps_what_is_cached():
    first = load(_policy(f"provider: vllm, {TWO}"))
    other = TWO.replace("weight: 3", "weight: 9").replace("api_key: k", "api_key: other")
    heavier = load(_policy(f"provider: vllm, {other}, balance: weight"))
    elsewhere = load(_policy(f"provider: vllm, {TWO.replace('//a', '//c')}"))

    assert first.revision("m") == heavier.revision("m")
    assert first.revision("m") != elsewhere.revision("m")
    plain, guarded = routes("  r: {model: tiny}"), routes(f"  r: {{model: tiny, {GUARDS}}}")
    assert load(plain).revision("r") == load(guarded).revision("r")


GUARDS = "retries: {attempts: 3}, breaker: {failures: 0.5, window: 30s, slow: 2s}"


def test_guards_have_sound_defaults_and_bounds():
    route = load(routes(f"  r: {{model: tiny, {GUARDS}}}")).routes["r"]

    assert route.retries.attempts == 3
    assert route.retries.budget == 0.1
    assert (route.breaker.window, route.breaker.slow, route.breaker.open_for) == (30.0, 2.0, 15.0)
    assert load(routes("  r: {model: tiny}")).routes["r"].breaker is None
    text = routes("  r: {model: tiny, retries: {attempts: 0}, breaker: {failures: 0}}")
    faults = " ".join(told(text))
    assert "routes.r.retries.attempts: expected at least 1, found 0" in faults
    assert "routes.r.breaker.failures: expected more than 0, found 0" in faults
