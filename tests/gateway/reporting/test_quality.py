"""What is told of a route's quality is what its outcomes say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from gateway.learning.book import Book, LearnStep, OutcomeRow
from gateway.learning.duties import duties_of
from gateway.learning.quality_report import quality_of
from gateway.money.sqlite import SqliteStore
from gateway.reporting.quality import certificates, quality
from gateway.reporting.window import window
from policies.loader import parse_policy
from tests.support.policies import two_tiers

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1e6)
TODAY = "2026-11-20"
POLICY = parse_policy(
    two_tiers("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1",
              cascade={"confidence": "learned", "target": {"max_quality_loss": 0.05}}),
    name="p", env={},
)  # fmt: skip
(DUTY,) = duties_of(POLICY)


def _step(number, kind, stage, *, key=DUTY.terms.key, why="so", **detail):
    told = {"key": key, "stage": stage, "why": why, "detail": detail}
    return LearnStep("auto", number, NOW_US - 100 + number, kind, json.dumps(told))


def _row(number, **changes):
    told = {
        "request_id": f"r{number:03}", "model": "small", "at_us": NOW_US - number * 1_000_000,
        "seq": 0, "route": "auto", "tenant": "web", "revision": "", "bundle": "",
        "reference": "large", "answered_by": "", "served": number % 2 == 0,
        "drawn": number % 3 != 0, "quality": (number % 20 + 0.5) / 20, "propensity": 0.5,
        "score": None if number % 11 == 0 else float(number % 20 > 4), "labeller": "exact",
        "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "cost_nano_usd": 1,
        "latency_us": 1, "stats": "{}",
    }  # fmt: skip
    return OutcomeRow(**(told | changes))


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("quality") / "ledger.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    book = Book(f"sqlite:///{path}")
    rows = [_row(number) for number in range(200)]
    truths = [_row(n, model="large", quality=None, score=1.0) for n in range(50)]
    book.add([*rows, *truths, _row(999, route="other")])
    book.close()
    return f"sqlite:///{path}"


@pytest.fixture
def route(url):
    asked = window("24h", None, None, NOW)
    return quality(url, asked, POLICY, [], lambda _: None, today=TODAY).routes[0]


def test_losses_are_those_that_the_outcomes_say(url, route):
    book = Book(url)
    known = quality_of("auto", book.rows("auto"))
    book.close()

    assert (route.drawn, route.losses, route.unknown) == (known.drawn, known.losses, known.unknown)
    assert (route.rate, route.low, route.high) == (known.rate, known.low, known.high)
    assert route.labels == known.labels
    assert route.floor == 0.05


def test_a_curve_shows_what_confidence_promised_and_kept(route):
    (small,) = route.models

    assert [bin.low for bin in small.bins] == [n / 10 for n in range(10)]
    assert sum(bin.drafts for bin in small.bins) == small.scored == 181
    assert small.bins[0].share_good == 0.0
    assert small.bins[9].share_good == 1.0
    assert small.bins[9].mean_confidence == pytest.approx(0.95, abs=0.01)


def test_a_route_learns_until_something_is_proven_and_says_when_it_was_lost(url):
    asked = window("24h", None, None, NOW)

    def state():
        return quality(url, asked, POLICY, [], lambda _: None, today=TODAY).routes[0]

    before = state().certificate.state
    book = Book(url)
    kept = {"bound": 0.04, "labeller": "exact", "max_loss": 0.05, "certainty": 0.95}
    book.take(_step(1, "certified", "certified", certificate=kept, labels=300))
    certified = state().certificate
    foreign = {**kept, "max_loss": 0.5}
    book.take(_step(2, "certified", "certified", key="small|large|0.5@0.95", certificate=foreign))
    unmoved = state().certificate
    book.take(_step(3, "lost", "calibrated", why="it drifted"))
    book.take(_step(4, "calibrated", "calibrated", why="fitted again"))
    book.close()
    after = state()

    assert (before, certified.state, after.certificate.state) == ("learning", "certified", "lost")
    assert unmoved == certified
    assert after.certificate.why == "it drifted"
    assert (certified.bound, certified.labels, certified.looks) == (0.04, 300, 1)
    assert [alarm.kind for alarm in after.alarms] == ["lost"]


KEPT = {"bound": 0.03, "labeller": "judge", "look": 2, "count": 900,
        "max_loss": 0.05, "certainty": 0.95}  # fmt: skip


def test_a_bundles_own_certificate_is_told(url):
    asked = window("24h", None, None, NOW)
    told = quality(url, asked, POLICY, [], lambda _: KEPT, today=TODAY).routes[0].certificate

    assert (told.state, told.bound, told.looks, told.labels) == ("certified", 0.03, 2, 900)
    assert (told.promised, told.promised_certainty, told.why) == (0.05, 0.95, None)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"max_loss": 0.08}, "it says at most 0.08 worse with certainty 0.95, the policy asks for"),
        ({"certainty": 0.9}, "it says at most 0.05 worse with certainty 0.9, the policy asks for"),
        ({"max_loss": None}, "it says no floor, the policy asks for at most 0.05 with 0.95"),
    ],
)
def test_a_certificate_for_less_than_the_policy_asks_is_told_as_weaker(url, said, why):
    told = certificates(url, POLICY, lambda _: KEPT | said, today=TODAY)["auto"]

    assert told.state == "weaker"
    assert why in told.why


def test_a_route_whose_bundle_audits_have_found_wanting_is_lost_whatever_the_bundle_says(url):
    named = _named({"max_quality_loss": 0.05})
    (duty,) = duties_of(named)
    book = Book(url)
    before = certificates(url, named, lambda _: KEPT, today=TODAY)["auto"]
    book.take(_step(1000, "lost", "rules", key=duty.terms.key, why="9 % of audits are losses"))
    book.close()
    told = certificates(url, named, lambda _: KEPT, today=TODAY)["auto"]

    assert (before.state, told.state) == ("certified", "lost")
    assert told.why == "9 % of audits are losses"


def test_a_target_of_money_asks_for_no_proof_whatever_the_bundle_says(url):
    told = certificates(url, _named({"max_usd_per_1k": 1}), lambda _: KEPT, today=TODAY)["auto"]

    assert told.state == "none"


def _named(target):
    cascade = {"confidence": "learned", "bundle": "/nowhere", "target": target, "audit": {}}
    text = two_tiers("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1", cascade=cascade)
    return parse_policy(text, name="p", env={})


@pytest.mark.parametrize(
    ("last", "state"), [("2026-11-21", "certified"), ("2026-11-20", "lost"), (None, "certified")]
)
def test_a_certificate_whose_last_day_is_over_is_lost(url, last, state):
    kept = KEPT | {"valid_until": last}
    asked = window("24h", None, None, NOW)
    told = quality(url, asked, POLICY, [], lambda _: kept, today="2026-11-21").routes[0]
    proofs = certificates(url, POLICY, lambda _: kept, today="2026-11-21")

    assert told.certificate == proofs["auto"]
    assert told.certificate.state == state
    assert told.certificate.valid_until == last


def test_false_hits_stand_beside_what_may_be_wrong(url):
    audited = {"route": "auto", "tenant": "web", "state": "serving", "audited": 50,
               "false_hit_rate": 0.02, "interval": [0.0, 0.1], "stops": 0}  # fmt: skip
    asked = window("24h", None, None, NOW)
    (told,) = (
        quality(url, asked, POLICY, [audited], lambda _: None, today=TODAY).routes[0].false_hits
    )

    assert (told.wrong, told.rate, told.high) == (1, 0.02, 0.1)
