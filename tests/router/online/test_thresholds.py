"""A threshold fitted on some audits and certified on others, in a world whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.guarantee import Floor
from router.online.acceptance import Acceptance, Platt, chance_of, odds_of
from router.online.thresholds import fit_platt, look, path_of, way_of
from router.online.traffic import Seen, for_tuning, held_out
from tests.support.traffic import DRAFT_USD, REFERENCE_USD, loss_at, traffic

FLOOR = Floor(0.05)


def raw_of(acceptance, model="small"):
    """Return the raw confidence at which drafts are accepted."""
    platt = acceptance.platt.get(model, Platt())
    if platt.weight == 0:
        return 0.0 if chance_of(platt.bias) >= acceptance.threshold else 1.0
    return chance_of((odds_of(acceptance.threshold) - platt.bias) / platt.weight)


def test_platt_finds_drafts_that_are_too_sure():
    platt = fit_platt(traffic(4_000, fall=0.2))["small"]

    assert 0.25 < platt(0.6) < 0.5
    assert 0.55 < platt(0.9) < 0.8


def test_few_labels_leave_confidence_as_it_is():
    assert fit_platt(traffic(10)) == {}
    assert Platt()(0.37) == 0.37


@pytest.mark.parametrize(
    ("weight", "bias"), [(-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))]
)
def test_what_is_no_rising_map_is_refused(weight, bias):
    with pytest.raises(ValueError, match="weight"):
        Platt(weight, bias)


def test_floor_is_broken_no_oftener_than_the_error_says():
    broken = held = 0
    for seed in range(120):
        found = look(traffic(500, seed=seed), FLOOR, ["small"], error=0.05)
        if found.tested is not None:
            held += 1
            broken += loss_at(raw_of(found.acceptance)) > FLOOR.max_loss

    assert held > 100  # it does certify, so the test can fail
    assert broken <= 12  # 120 x 0.05 = 6, and chance


def test_certificate_stands_on_requests_that_chose_nothing():
    audits = traffic(400)
    found = look(audits, FLOOR, ["small"], error=0.05)
    kept = held_out(audits)

    assert found.count == len(kept)
    assert not {each.id for each in kept} & {each.id for each in for_tuning(audits)}
    assert 0.15 < len(for_tuning(audits)) / len(audits) < 0.35


def test_answer_nobody_could_judge_counts_as_a_loss():
    found = look(traffic(600, known=0.5), FLOOR, ["small"], error=0.05)
    told = look(traffic(600), FLOOR, ["small"], error=0.05)

    assert found.tested is None or raw_of(found.acceptance) > raw_of(told.acceptance)


def test_nothing_is_certified_of_drafts_that_are_always_wrong():
    assert look(traffic(600, fall=1.0), FLOOR, ["small"], error=0.05).tested is None


def test_cheapest_of_what_holds_is_taken_and_must_pay():
    found = look(traffic(600), FLOOR, ["small"], error=0.05)
    dear = [replace(each, reference_usd=DRAFT_USD / 2) for each in traffic(600)]

    assert found.pays
    assert found.usd < REFERENCE_USD
    assert not look(dear, FLOOR, ["small"], error=0.05).pays


def test_path_goes_from_careful_to_careless_and_ends():
    path = path_of(traffic(2_000), {}, FLOOR, "small")

    assert path == sorted(path, reverse=True)
    assert path[0] > 0.9
    assert loss_at(path[-2]) < 3 * FLOOR.max_loss


def test_threshold_lets_those_through_that_it_was_taken_from():
    alike = [
        replace(each, drafts=(replace(each.drafts[0], raw=0.1 + 0.8 * (each.at_us % 7) / 7),))
        for each in traffic(200)
    ]
    platt = fit_platt(alike)
    path = path_of(alike, platt, Floor(0.5), "small")

    assert path
    for threshold in path:
        served = [way_of(each, Acceptance(threshold, platt), "small", 0.0) for each in alike]
        qualities = [platt["small"](way.served.raw) for way in served if way.served]
        assert min(qualities) - threshold < 1e-6


def test_request_whose_next_tier_was_never_asked_counts_as_a_loss():
    (request,) = traffic(1, served=True)
    careful = Acceptance(1.1)

    assert way_of(request, careful, "middle", 0.0).is_loss
    assert not way_of(request, careful, "small", 0.0).is_loss


def test_draft_that_is_no_use_is_passed_over():
    (request,) = traffic(1)
    useless = Seen("small", None, 0.0, 0.001)
    way = way_of(replace(request, drafts=(useless,)), Acceptance(0.0), "small", 0.0)

    assert (way.served, way.usd) == (None, pytest.approx(0.011))
