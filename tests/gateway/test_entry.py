"""The account of a request: its path in words, what may be kept, and what it is charged."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cache.codec import Stored, dump, load
from gateway.access.keys import ANONYMOUS
from gateway.attempt import Tariff
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from gateway.money.prices import resolve_prices
from gateway.money.usage import Usage
from gateway.released import cached, usage_told
from gateway.request import parse_chat
from gateway.wire import Part
from policies.loader import parse_policy
from policies.schema import Route
from router.types import Skip, Verdict, cut_short
from tests.support.gateway_app import asking
from tests.support.policies import CHEAP, DEAR, policy, remote

URL = "http://127.0.0.1:1/v1"
MODELS = {
    "small": remote(URL, price=CHEAP),
    "large": remote(URL, price=DEAR),
    "ours": remote(URL, price={"machine_hour_usd": 3.6}),
}
CHECKED = parse_policy(policy(MODELS), name="policy.yaml", env={})
TARIFF = Tariff(resolve_prices(CHECKED, datetime.now(UTC)), dict.fromkeys(MODELS))
CASCADE = Route.model_validate({"cascade": {"tiers": ["small", "large"]}})
WHOLE = Part(b"{}", "four words are here", "stop", Usage(input=100, output=10))
SURE = Verdict(True, 0.93, "confident")
UNSURE = Verdict(False, 0.41, "confidence below 0.8")


class Ticking:
    """A clock that moves by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tick():
    return Ticking()


@pytest.fixture
def entry(tick):
    request = parse_chat(json.dumps(asking()).encode(), {}, "req_1")
    return Entry(request, ANONYMOUS, "auto", CASCADE, Clock(wall=lambda: 1e9, tick=tick))


def _held(entry, model, verdict, part=WHOLE):
    attempt = entry.attempt(model)
    attempt.hold(part)
    attempt.end()
    attempt.verdict = verdict
    return attempt


def _live(entry, model, *parts, why="tier"):
    attempt = entry.attempt(model, why=why)
    entry.serve(attempt)
    for part in parts:
        attempt.see(part)
    attempt.end()
    return attempt


def test_the_path_tells_of_every_model_met(entry):
    entry.skipped = [Skip("blind", "vision")]
    _held(entry, "small", UNSURE)
    cut = entry.attempt("middle")
    cut.hold(Part(b"data: {}\n\n", "half"))
    cut.reject_early(cut_short("given up", 0.1))
    entry.attempt("down").fail(ProviderUnavailable("no"))
    _live(entry, "large", WHOLE)

    assert entry.path == (
        "blind:vision:skipped,small:0.41:escalated,middle:0.10:escalated_early,"
        "down:unavailable:failed,large:served"
    )
    assert entry.model == "large"


def test_accepted_degraded_and_fallback_have_words_of_their_own(entry):
    entry.serve(_held(entry, "small", SURE))
    entry.serve(_held(entry, "small", UNSURE))
    _live(entry, "large", WHOLE, why="fallback")

    assert entry.path == "small:0.93:accepted,small:0.41:degraded,large:fallback"


def test_a_judge_is_not_part_of_the_path_and_is_paid_for(entry):
    entry.serve(_held(entry, "small", SURE))
    judge = entry.attempt("large", purpose="judge")
    judge.see(WHOLE)
    judge.end()
    record, lines = entry.settle(TARIFF)

    assert entry.path == "small:0.93:accepted"
    assert [(line.purpose, line.cost_nano_usd) for line in lines] == [
        ("serve", 100_000 + 20_000),
        ("judge", 1_000_000 + 200_000),
    ]
    assert record.cost_nano_usd == 1_320_000
    # What the reference would have cost is what the served answer took, and not the judge's.
    assert record.saved_nano_usd == 1_200_000 - 1_320_000


def test_an_answer_that_was_accepted_or_sent_live_may_be_kept(entry):
    _held(entry, "small", UNSURE)
    _live(entry, "large", WHOLE)

    assert entry.is_keepable


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: entry.abandon(),
        lambda entry: entry.fail(ProviderTimeout("slow")),
        lambda entry: setattr(entry.served, "is_complete", False),
        lambda entry: setattr(entry.served, "why", "fallback"),
        lambda entry: setattr(entry.served, "verdict", UNSURE),
        lambda entry: setattr(entry.served, "finish_reason", "content_filter"),
        lambda entry: entry.attempt("other").fail(ProviderTimeout("slow")),
        lambda entry: setattr(entry, "served", None),
    ],
    ids=["abandoned", "failed", "cut", "a fallback", "degraded", "filtered", "after an error",
         "nobody's"],
)  # fmt: skip
def test_nothing_else_is_kept(entry, spoil):
    _live(entry, "large", WHOLE)
    spoil(entry)

    assert not entry.is_keepable


def test_reported_usage_is_charged_exactly(entry):
    spent = _live(entry, "large", WHOLE).spent(TARIFF, entry.request)

    assert spent.cost == spent.lower == spent.upper == Decimal("0.0012")
    assert not spent.usage.estimated


def test_a_report_beyond_belief_gives_way_to_our_own_count(entry):
    absurd = Part(b"{}", "four words are here", "stop", Usage(input=900_000, output=10))
    attempt = _live(entry, "large", absurd)
    spent = attempt.spent(TARIFF, entry.request)

    assert spent.usage.estimated
    assert spent.usage.input < 100
    assert attempt.usage is None


def test_a_long_report_of_a_prompt_with_images_is_believed():
    parts = [{"type": "image_url", "image_url": {"url": "https://h/a.png"}}]
    body = {"model": "large", "messages": [{"role": "user", "content": parts}]}
    request = parse_chat(json.dumps(body).encode(), {}, "req_1")
    entry = Entry(request, ANONYMOUS, "auto", CASCADE, Clock())
    whole = Part(b"{}", "words", "stop", Usage(input=900_000, output=10))

    assert not _live(entry, "large", whole).spent(TARIFF, request).usage.estimated


def test_the_last_report_of_a_stream_counts(entry):
    parts = [Part(b"", usage=Usage(input=5)), Part(b"", usage=Usage(input=5, output=7))]
    spent = _live(entry, "large", *parts).spent(TARIFF, entry.request)

    assert spent.usage.output == 7


@pytest.mark.parametrize(
    ("failure", "is_bounded"),
    [
        (ProviderUnavailable("refused"), False),
        (ProviderTimeout("slow"), True),
        (ProviderProtocolError("cut"), True),
    ],
)
def test_a_failure_without_a_word_costs_nothing_or_up_to_a_bound(entry, failure, is_bounded):
    attempt = entry.attempt("large")
    attempt.fail(failure)
    spent = attempt.spent(TARIFF, entry.request)

    assert spent.cost == spent.lower == 0
    assert (spent.upper > 0) is is_bounded
    assert spent.usage.estimated is is_bounded


def test_a_failure_after_some_words_is_estimated_between_its_bounds(entry):
    attempt = entry.attempt("large")
    attempt.see(Part(b"", "some words"))
    attempt.fail(ProviderProtocolError("cut"))
    spent = attempt.spent(TARIFF, entry.request)

    assert 0 < spent.lower < spent.cost < spent.upper
    assert spent.usage.estimated


def test_a_machine_of_ours_is_charged_for_no_longer_than_the_attempt_took(entry, tick):
    attempt = entry.attempt("ours")
    attempt.see(Part(b"", "word"))
    tick.now += 2
    attempt.reject_early(cut_short("given up"))
    spent = attempt.spent(TARIFF, entry.request)

    assert spent.lower == 0
    assert spent.upper == Decimal("0.002")


def test_what_was_told_of_a_draft_is_in_its_line(entry, tick):
    draft = entry.attempt("small")
    tick.now += 0.25
    draft.hold(WHOLE)
    tick.now += 0.5
    draft.end()
    draft.verdict = UNSURE
    _, (line,) = entry.settle(TARIFF)

    assert (line.outcome, line.confidence, line.reason) == ("rejected", 0.41, UNSURE.reason)
    assert (line.ttft_us, line.latency_us) == (250_000, 750_000)
    assert line.payer == ANONYMOUS.tenant


def test_nothing_is_saved_where_nothing_was_served(entry):
    _held(entry, "small", UNSURE)
    entry.abandon()
    record, (line,) = entry.settle(TARIFF)

    assert (record.state, record.status, record.saved_nano_usd) == ("abandoned", 499, 0)
    assert record.cost_nano_usd == line.cost_nano_usd == 120_000


def test_a_kept_answer_holds_its_usage_with_its_service_tier(entry):
    used = Usage(input=100, output=10, cache_write_1h=5, tier="flex")
    part = Part(b"{}", "words", "stop", used)
    _live(entry, "large", part)
    reply = cached([part], entry, Clock(), 1.0)
    stored = Stored(reply, 2e9, 0)

    assert load(b"k" * 32, dump(b"k" * 32, stored)) == stored
    assert usage_told(reply.usage) == used
