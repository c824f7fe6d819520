from __future__ import annotations

from gateway.providers.openai import FLAVOURS
from policies.kinds import LOGPROBS_BY_DEFAULT, OPENAI_PROVIDERS
from policies.notes import notes
from tests.policies.support import SMALL, load, routes

OPEN = "access: {anonymous: loopback}\n"


def test_policy_that_nobody_may_use_is_remarked_on():
    assert any(note.startswith("access: nobody may call") for note in notes(load(SMALL)))
    assert not any(note.startswith("access") for note in notes(load(SMALL + OPEN)))


def test_model_that_is_free_for_want_of_a_price_is_remarked_on():
    (note,) = notes(load(SMALL + OPEN))

    assert note.startswith("models.mini.price: what it costs counts as zero")


def test_a_corpus_without_a_cache_is_remarked_on():
    text = routes(
        "  a: {model: tiny, cache: {share: docs}}\n"
        "  b: {model: tiny, cache: {share: docs, exact: {ttl: 1h}}}\n"
        "  c: {model: tiny, cache: {share: off}}\n"
    )

    found = [note for note in notes(load(text + OPEN)) if note.startswith("routes")]
    assert found == ["routes.a: 'cache.share' shares nothing: no cache is on"]


def test_judged_tier_that_is_not_asked_for_log_probabilities_is_remarked_on():
    text = routes(
        "  a: {cascade: {tiers: [tiny, large, mini]}}\n"
        "  b: {cascade: {tiers: [large, mini], confidence: {kind: agreement, with: tiny}}}\n"
        "  c: {model: tiny, rules: [{when: {tag: x}, tiers: [large, mini]}]}\n"
    )

    found = [note for note in notes(load(text + OPEN)) if note.startswith("routes")]

    assert [note.split(": ")[0] for note in found] == [
        "routes.a.cascade.tiers[1]",
        "routes.c.rules[0].tiers[0]",
    ]
    assert "write logprobs: true" in found[0]


def test_a_route_that_cannot_learn_what_it_is_to_is_remarked_on():
    def found(more, texts=False):
        told = f"  a: {{cascade: {{tiers: [tiny, mini], confidence: learned{more}}}}}\n"
        kept = f"privacy: {{store_texts: {str(texts).lower()}}}\n"
        every = notes(load(routes(told) + OPEN + kept))
        return [note for note in every if note.startswith("routes")]

    floor, audits = ", target: {max_quality_loss: 0.02}", ", audit: {share: 0.02}"
    (stuck,) = found(floor)
    (shallow,) = found(floor + audits)

    assert stuck.startswith("routes.a.cascade.target: without audits no floor is ever certified")
    assert found(floor + ", audit: {share: 0}") == [stuck]
    assert shallow.startswith("routes.a.cascade: without privacy.store_texts the whole learner")
    assert found(floor + audits, texts=True) == found("") == []
    assert found(floor + ", learning: {automatic: false}") == []


def test_kinds_and_flavours_agree_on_log_probabilities():
    told = {name for name in OPENAI_PROVIDERS if FLAVOURS[name].logprobs}

    assert told == LOGPROBS_BY_DEFAULT - {"local"}


def test_a_judged_tier_of_anthropics_is_told_that_it_reports_none():
    text = routes("  a: {cascade: {tiers: [claude, mini]}}\n").replace(
        "models:", "models:\n  claude: {provider: anthropic, api_key: k}", 1
    )
    (note,) = [note for note in notes(load(text + OPEN)) if note.startswith("routes")]

    assert "its API reports none" in note
