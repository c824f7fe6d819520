from __future__ import annotations

import pytest

from tests.policies.support import load, problems, routes, told

ROUTE = "  r: {model: tiny, cache: {semantic: %s}}"


def test_semantic_cache_has_careful_defaults_and_takes_what_it_is_told():
    text = routes(ROUTE % "{max_error: 0.02, ttl: 1h, embedder: BAAI/bge-small-en-v1.5}")

    cache = load(text).routes["r"].semantic_cache()

    assert (cache.max_error, cache.ttl, cache.embedder) == (0.02, 3600.0, "BAAI/bge-small-en-v1.5")
    assert (cache.max_entry, cache.audit) == (256 * 1024, 0.02)


def test_a_route_without_one_has_none():
    assert load(routes("  r: {model: tiny}")).routes["r"].semantic_cache() is None
    assert load(routes(ROUTE % "off")).routes["r"].semantic_cache() is None


def test_rule_changes_the_semantic_cache_only_where_it_says_so():
    policy = load(
        routes(
            "  r:\n    model: tiny\n    cache: {semantic: {ttl: 1h}}\n"
            "    rules:\n"
            "      - {when: {tag: a}, cache: {exact: off}}\n"
            "      - {when: {tag: b}, cache: {semantic: off}}\n"
            "      - {when: {tag: c}, cache: {semantic: {ttl: 2h}}}\n"
        )
    )
    route = policy.routes["r"]

    found = [route.semantic_cache(rule) for rule in (None, *route.rules)]
    assert [cache and cache.ttl for cache in found] == [3600.0, 3600.0, None, 7200.0]


def test_rule_changes_the_corpus_only_where_it_says_so():
    policy = load(
        routes(
            "  r:\n    model: tiny\n    cache: {semantic: {}, share: docs}\n"
            "    rules:\n"
            "      - {when: {tag: a}, cache: {exact: off}}\n"
            "      - {when: {tenant: b}, cache: {share: off}}\n"
            "      - {when: {tag: c}, cache: {share: more}}\n"
            "  own: {model: tiny}\n"
        )
    )
    route, own = policy.routes["r"], policy.routes["own"]

    assert [route.corpus(rule) for rule in (None, *route.rules)] == ["docs", "docs", None, "more"]
    assert (route.has_corpora, own.has_corpora, own.corpus()) == (True, False, None)


@pytest.mark.parametrize("value", ["0", "0.6", "-0.1", "lots"])
def test_an_error_that_cannot_be_meant_is_refused(value):
    (problem,) = problems(routes(ROUTE % f"{{max_error: {value}}}"))

    assert problem.path == "routes.r.cache.semantic.max_error"


def test_two_embedders_are_refused():
    (line,) = told(
        routes(
            "  r: {model: tiny, cache: {semantic: {embedder: a}}}\n"
            "  s: {model: tiny, cache: {semantic: {embedder: b}}}"
        )
    )

    assert "routes.s.cache.semantic" in line
    assert "expected the embedder 'a' of the other routes, found 'b'" in line


def test_cache_settings_keep_the_revision():
    one, other = (load(routes(ROUTE % each)) for each in ("{ttl: 1h}", "{ttl: 2h}"))

    assert one.revision("r") == other.revision("r")


def test_a_judge_must_be_a_model_of_the_policy():
    assert load(routes(ROUTE % "{judge: tiny}")).routes["r"].semantic_cache().judge == "tiny"

    (problem,) = problems(routes(ROUTE % "{judge: tyni}"))
    assert problem.path == "routes.r.cache.semantic.judge"


def test_a_cross_encoder_is_named_or_there_is_none():
    text = routes(ROUTE % "{verify: {cross_encoder: ./pairs}}")

    assert load(text).routes["r"].semantic_cache().verify.cross_encoder == "./pairs"
    (problem,) = problems(routes(ROUTE % "{verify: {}}"))
    assert problem.path.startswith("routes.r.cache.semantic.verify")
