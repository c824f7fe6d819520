"""What holds no more: losses, estimates, features and versions, in traffic that changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.guarantee import Floor
from router.online.stages import counting, next_step
from router.online.standing import Standing, Taken, Terms, after, beginning, standing_of
from tests.support.traffic import traffic

TERMS = Terms(("small",), "large", Floor(0.1))


def stood(requests, terms=TERMS):
    """Return where the route stands after this traffic, as of its end."""
    standing = Standing()
    while (step := next_step(counting(requests, standing, terms), standing, terms)) is not None:
        standing = after(standing, Taken(1, requests[-1].at_us + 1, step, terms.key))
    return standing


def due(requests, standing, terms=TERMS, latest=None):
    return next_step(counting(requests, standing, terms), standing, terms, latest or {})


@pytest.fixture(scope="module")
def past():
    return traffic(400, version="v1", reference_version="r1")


def later(count, **changes):
    given = {"version": "v1", "reference_version": "r1", **changes}
    return traffic(count, seed=9, start=401, **given)


def test_traffic_that_stays_as_it_was_raises_no_alarm(past):
    standing = stood(past)

    assert standing.stage == "certified"
    assert due(past + later(150), standing) is None


def test_drafts_that_get_worse_lose_the_certificate_and_only_the_new_count(past):
    standing = stood(past)
    worse = past + later(190, fall=0.5)
    step = due(worse, standing)
    fallen = after(standing, Taken(9, worse[-1].at_us + 1, step, TERMS.key))

    assert step.kind == "lost"
    assert (fallen.stage, fallen.certificate) == ("calibrated", None)
    assert all(each.at_us >= 380 for each in counting(worse, fallen, TERMS))


def test_calibration_that_no_longer_fits_falls_back_to_rules_where_there_is_no_floor(past):
    plain = replace(TERMS, floor=None)
    standing = stood(past, plain)
    worse = past + later(300, fall=0.6)
    step = due(worse, standing, plain)
    fallen = after(standing, Taken(9, worse[-1].at_us + 1, step, plain.key))

    assert (standing.stage, step.kind, fallen.stage) == ("calibrated", "lost", "rules")
    assert fallen.acceptance.platt == {}


def test_answers_that_nobody_judges_any_more_count_as_losses(past):
    assert due(past + later(190, known=0.0), stood(past)).kind == "lost"


@pytest.mark.parametrize(
    ("change", "is_reference"),
    [({"version": "v2"}, False), ({"reference_version": "r2"}, True)],
)
def test_new_version_of_a_model_resets_what_is_known_of_it(past, change, is_reference):
    standing = stood(past)
    now = past + later(3, **change)
    step = due(now, standing)
    reset = after(standing, Taken(9, now[-1].at_us + 1, step, TERMS.key))

    assert (step.kind, step.detail["is_reference"]) == ("reset", is_reference)
    assert (reset.stage, reset.certificate) == ("rules", None)
    assert [each.at_us for each in counting(now, reset, TERMS)] == [401, 402, 403]
    assert due(now, reset) is None


def test_new_version_is_heard_of_from_traffic_that_nobody_audits(past):
    step = due(past, stood(past), latest={"small": ("v1", "v1", "v2", "v2", "v2")})

    assert step.kind == "reset"


def test_two_versions_behind_one_name_are_reset_once_and_then_known(past):
    standing = stood(past)
    mixed = past + [
        one for pair in zip(later(8), later(8, version="v2"), strict=True) for one in pair
    ]
    step = due(mixed[:-1] + mixed[-1:] * 3, standing)
    reset = after(standing, Taken(9, 1_000, step, TERMS.key))

    assert due(mixed, reset) is None
    assert set(reset.versions["small"]) == {"v1", "v2"}


def test_upstream_that_names_no_version_is_never_reset():
    silent = traffic(400)

    assert due(silent + traffic(50, seed=3, start=401), stood(silent)) is None


def test_moved_features_are_told_of_once(past):
    standing = stood(past)
    longer = [replace(each, prompt_tokens=each.at_us * 7 % 900) for each in later(250)]
    usual = [replace(each, prompt_tokens=each.at_us * 7 % 90) for each in past]
    step = due(usual + longer, standing)
    told = after(standing, Taken(9, 10_000, step, TERMS.key))

    assert (step.kind, step.detail["feature"]) == ("drift", "prompt tokens")
    assert (told.stage, told.certificate) == ("certified", standing.certificate)
    assert due(usual + longer, told) is None or due(usual + longer, told).kind != "drift"


# A bundle that the policy names


def run_by(requests):
    """Return requests as a bundle ran them: what it believed in was served."""
    return [
        replace(each, drafts=(replace(each.drafts[0], served=each.drafts[0].quality > 0.8),))
        for each in requests
    ]


@pytest.mark.parametrize(("floor", "kind", "stage"), [
    (Floor(0.1), "lost", "rules"), (None, "drift", "learned"),
])  # fmt: skip
def test_bundle_of_the_policy_is_watched_and_under_a_floor_given_up(floor, kind, stage):
    terms = replace(TERMS, floor=floor, bundle="sha256:1")
    standing = beginning(terms)
    good, bad = run_by(traffic(400)), run_by(later(400, fall=0.7))
    step = due(good + bad, standing, terms)
    fallen = after(standing, Taken(1, 10_000, step, terms.key))

    assert due(good, standing, terms) is None
    assert (step.kind, fallen.stage) == (kind, stage)
    assert due(good + bad, fallen, terms) is None
    assert standing_of([Taken(1, 10_000, step, "other")], terms).stage == "learned"
