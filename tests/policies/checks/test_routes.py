from __future__ import annotations

import pytest

from tests.policies.support import SMALL, load, routes, told


@pytest.mark.parametrize(
    "route",
    [
        "  tiny: {model: tiny, fallback: [mini, large]}",
        "  r: {cascade: {tiers: [tiny, mini, large], confidence: {kind: agreement, with: large}}}",
        "  r: {cascade: {tiers: [tiny, large], confidence: 'mine.scorers:Best'}}",
        "  r: {cascade: {tiers: [tiny, large], confidence: learned, bundle: bundles/r}}",
        "  r: {cascade: {tiers: [tiny, large], confidence: learned,"
        " target: {max_quality_loss: 0.02}, audit: {judge: mini}, control: 0.01}}",
        "  r: {cascade: {tiers: [tiny]}, fallback: [mini]}",
        "  r:\n    cascade: {tiers: [tiny, mini]}\n    fallback: [mini]\n"
        "    rules: [{when: {has_images: true}, model: large}]",
        "  r: {model: tiny, rules: [{when: {tag: x}, model: large}, {when: {}, tiers: [mini]}]}",
        "  r: {model: tiny, rules: [{when: {header: {X-Team: a, x-b: b}}, cache: {exact: off}}]}",
    ],
)
def test_route_that_can_work_is_accepted(route):
    assert load(routes(route)).routes


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        (
            "  r: {model: tinny}",
            "7:14: routes.r.model: no model is named 'tinny' (did you mean 'tiny'?)",
        ),
        ("  r: {model: zzz}", "no model is named 'zzz' (known: tiny, mini, large)"),
        ("  r: {cascade: {tiers: [tiny, x]}}", "routes.r.cascade.tiers[1]: no model is named 'x'"),
        ("  r: {cascade: {tiers: [tiny], reference: x}}", "routes.r.cascade.reference: no model"),
        ("  r: {model: tiny, fallback: [x]}", "routes.r.fallback[0]: no model is named 'x'"),
        (
            "  r: {cascade: {tiers: [tiny, mini], target: {max_usd_per_1k: 1}}}",
            "routes.r.cascade.target: 'target' means nothing to confidence logprob",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], usd_per_second: 0.01}}",
            "'usd_per_second' means nothing to confidence logprob",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: learned, reference: large}}",
            "routes.r.cascade.reference: the reference 'large' of a learned cascade",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: learned, target: {certainty: 0.9}}}",
            "routes.r.cascade.target: expected exactly one of max_quality_loss",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: learned, bundle: 'b#sha256:1'}}",
            "routes.r.cascade.bundle: expected a folder made by `frugal train`",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], audit: {judge: x}}}",
            "routes.r.cascade.audit.judge: no model is named 'x'",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: learned},"
            " rules: [{when: {tag: x}, tiers: [tiny, large]}]}",
            "routes.r.rules[0].tiers[1]: 'large' is no tier of this learned cascade",
        ),
        (
            "  r: {model: tiny, rules: [{when: {tag: x}, model: y}]}",
            "routes.r.rules[0].model: no model",
        ),
        (
            "  r: {model: tiny, rules: [{when: {tag: x}, tiers: [y]}]}",
            "routes.r.rules[0].tiers[0]: no model",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {kind: agreement, with: x}}}",
            "routes.r.cascade.confidence.with: no model",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini, tiny]}}",
            "routes.r.cascade.tiers[2]: 'tiny' stands twice",
        ),
        (
            "  r: {model: tiny, rules: [{when: {tag: x}, tiers: [mini, mini]}]}",
            "rules[0].tiers[1]: 'mini' stands twice",
        ),
        ("  r: {model: tiny, fallback: [mini, mini]}", "routes.r.fallback[1]: 'mini' stands twice"),
        (
            "  r: {model: tiny, fallback: [tiny]}",
            "routes.r.fallback[0]: 'tiny' is a model of this route already",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini]}, fallback: [mini]}",
            "'mini' is a model of this route already",
        ),
        (
            "  r: {model: tiny, fallback: [r]}",
            "routes.r.fallback[0]: expected a model, found the route 'r'",
        ),
        (
            "  a: {model: tiny, fallback: [b]}\n  b: {model: tiny, fallback: [a]}",
            "routes.b.fallback[0]: expected a model, found the route 'a'",
        ),
        (
            "  r: {model: tiny, rules: [{when: {}, model: mini}, {when: {tag: x}, model: large}]}",
            "rules[0].when: matches every request",
        ),
        (
            "  r:\n    model: tiny\n    rules:\n"
            "      - {when: {input_tokens_over: 9, input_tokens_under: 10}, model: mini}",
            "no number is over 9 and under 10",
        ),
        (
            "  r: {model: tiny, rules: [{when: {header: {X-A: 1, x-a: '2'}}, model: mini}]}",
            "header.X-A: expected text, found 1",
        ),
        (
            "  r: {model: tiny, rules: [{when: {header: {X-A: a, x-a: b}}, model: mini}]}",
            "the header x-a stands twice",
        ),
        (
            "  r: {model: tiny, rules: [{when: {header: {'x a': b}}, model: mini}]}",
            "'x a' is not the name of a header",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: agreement}}",
            "routes.r.cascade.confidence.with: confidence agreement needs it",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {kind: agreement, with: tiny}}}",
            "tiers[0]: 'tiny' would be judged by itself",
        ),
        (
            "  r:\n    cascade:\n      tiers: [tiny, mini]\n"
            "      confidence: {kind: agreement, with: large, early: {}}",
            "confidence.early: 'early' needs token log-prob",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {with: large}}}",
            "confidence.with: 'with' means nothing to confidence logprob",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: logprobs}}",
            "unknown confidence 'logprobs' (did you mean 'logprob'?)",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {kind: zzz}}}",
            "confidence.kind: unknown confidence 'zzz' (known: agreement",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {threshold: 1.5}}}",
            "threshold: expected at most 1, found 1.5",
        ),
        (
            "  r: {cascade: {tiers: [tiny, mini], confidence: {threshold: true}}}",
            "threshold: expected a number, found true",
        ),
    ],
)
def test_route_that_cannot_work_is_refused(route, fault):
    assert any(fault in line for line in told(routes(route))), told(routes(route))


@pytest.mark.parametrize(
    "silent", ["provider: recorded, outcomes: o", "provider: openai, api_key: k, logprobs: false"]
)
def test_drafts_without_log_probabilities_cannot_be_judged_by_them(silent):
    text = SMALL + f"  quiet: {{{silent}}}\nroutes:\n"
    judged, last = (
        "  r: {cascade: {tiers: [quiet, large]}}",
        "  r: {cascade: {tiers: [tiny, quiet]}}",
    )

    assert "tiers[0]: 'quiet' gives no log-probabilities" in told(text + judged)[0]
    assert told(text + last) == []
