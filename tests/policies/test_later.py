from __future__ import annotations

import pytest

from policies.later import LATER_KEYS
from tests.policies.support import SMALL, load, problems, routes, told

ROUTE = "  r: {model: tiny, %s}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (
            routes(ROUTE % "rules: [{when: {language: de}, model: large}]"),
            "routes.r.rules[0].when.language",
        ),
    ],
)
def test_what_comes_later_is_refused_by_name(text, path):
    (problem,) = problems(text)

    assert problem.path == path
    assert problem.message.startswith("not built yet: ")
    assert problem.line > 0


def test_every_scheme_of_the_engine_may_be_asked_for():
    from local_engine.quant import SCHEMES

    for scheme in SCHEMES:
        policy = load(SMALL.replace("demo/tiny", f"demo/tiny, quantization: {scheme}"))
        assert policy.models["tiny"].quantization == scheme


def test_a_cache_that_is_off_needs_nothing_built():
    text = routes(ROUTE % "cache: {exact: off, semantic: off}")

    assert load(text).routes["r"].cache.exact is None


def test_the_rest_of_a_section_is_still_checked():
    found = told(routes(ROUTE % "rules: [{when: {language: de, tag: 3}, model: large}]"))

    assert [line.split(": ")[1] for line in found] == [
        "routes.r.rules[0].when.language",
        "routes.r.rules[0].when.tag",
    ]


def test_no_key_is_both_built_and_refused():
    from policies.explain import known_keys

    for path in LATER_KEYS:
        known = known_keys(tuple(0 if key == "*" else key for key in path[:-1]))
        assert known, path
        assert path[-1] not in known, path
