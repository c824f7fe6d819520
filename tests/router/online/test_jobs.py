"""When to train, when to weigh what came of it, and what that decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.guarantee import Floor
from router.online.jobs import LEASE_US, next_job, step_of_weighing
from router.online.standing import Standing, Step, Taken, Terms, after
from tests.support.traffic import traffic

TERMS = Terms(("small",), "large", Floor(0.05), train_from=300, may_train=True)
STOOD = Standing(stage="calibrated")
FOUND = {
    "why_not": None,
    "rate": 0.5,
    "usd": [-0.2, -0.3, -0.1],
    "quality": [0.0, -0.1, 0.1],
    "reference_share": 0.4,
    "certificate": {"point": 3, "losses": 1, "count": 400, "bound": 0.02},
}
CANDIDATE = {"path": "p", "id": "i", "until_us": 999}


def taken(standing, kind, detail, at_us=5):
    step = Step(kind, "", detail)
    return after(standing, Taken(standing.number + 1, at_us, step, TERMS.key))


def test_training_waits_for_enough_audits_with_their_texts():
    assert next_job(traffic(299), STOOD, TERMS, 0) is None
    assert next_job(traffic(300), STOOD, TERMS, 0).kind == "train"
    assert next_job(traffic(300), STOOD, replace(TERMS, may_train=False), 0) is None
    assert next_job(traffic(300, known=0.5), STOOD, TERMS, 0) is None
    assert next_job(traffic(300, drawn=False), STOOD, TERMS, 0) is None
    assert next_job(traffic(300), Standing(), TERMS, 0) is None


def test_training_under_way_is_left_alone_until_it_must_have_died():
    standing = taken(STOOD, "training", {"audits": 10}, at_us=1_000)

    assert next_job(traffic(300), standing, TERMS, 2_000) is None
    assert next_job(traffic(300), standing, TERMS, 1_000 + LEASE_US).kind == "train"


def test_training_that_died_is_begun_again_with_what_there_is():
    standing = taken(STOOD, "training", {"audits": 300}, at_us=1_000)
    at_work = taken(standing, "at_work", {}, at_us=5_000)

    assert next_job(traffic(300), standing, TERMS, 1_000 + LEASE_US).kind == "train"
    assert next_job(traffic(300), at_work, TERMS, 1_000 + LEASE_US) is None
    assert next_job(traffic(300), at_work, TERMS, 5_000 + LEASE_US).kind == "train"


def test_nobody_is_at_work_after_a_training_has_ended():
    standing = taken(taken(STOOD, "training", {"audits": 300}), "untrained", {})

    assert taken(standing, "at_work", {}).training_us == 0


def test_after_a_training_twice_as_many_audits_are_waited_for():
    standing = taken(taken(STOOD, "training", {"audits": 300}), "untrained", {})

    assert next_job(traffic(599), standing, TERMS, 10) is None
    assert next_job(traffic(600), standing, TERMS, 10).audits == 600


def test_candidate_is_weighed_on_audits_that_it_has_not_seen():
    standing = taken(STOOD, "candidate", CANDIDATE)
    job = next_job(traffic(1_400), standing, TERMS, 0)

    assert next_job(traffic(1_100), standing, TERMS, 0) is None
    assert (job.kind, job.since_us, job.audits) == ("weigh", 1_000, 400)


def test_promoted_candidate_runs_and_what_ran_before_is_kept():
    waiting = taken(STOOD, "candidate", CANDIDATE)
    step = step_of_weighing(FOUND, waiting, TERMS, 400)
    standing = taken(waiting, step.kind, step.detail)

    assert (step.kind, standing.stage, standing.looks) == ("promoted", "learned", 1)
    assert standing.bundle == {"path": "p", "id": "i", "rate": 0.5, "early": None}
    assert standing.certificate["max_loss"] == 0.05
    assert standing.under_bundle.stage == "calibrated"


def test_candidate_that_does_not_win_is_given_up_at_last():
    standing, looks = taken(STOOD, "candidate", CANDIDATE), 0
    while standing.candidate is not None:
        step = step_of_weighing({"why_not": "dearer"}, standing, TERMS, 400)
        standing = taken(standing, step.kind, step.detail)
        looks += 1
        assert looks < 10

    assert (looks, standing.looks) == (3, 3)  # each has spent its error
    assert step.detail["is_final"]


@pytest.mark.parametrize(("to_former", "stage"), [(True, "certified"), (False, "rules")])
def test_bundle_that_fails_gives_way_to_what_it_replaced_or_to_nothing(to_former, stage):
    certified = replace(STOOD, stage="certified", certificate={"bound": 0.04})
    waiting = taken(certified, "candidate", CANDIDATE)
    learned = taken(waiting, "promoted", step_of_weighing(FOUND, waiting, TERMS, 400).detail)
    fallen = taken(learned, "rolled_back", {"since_us": 7, "to_former": to_former})

    assert (fallen.stage, fallen.bundle, fallen.looks) == (stage, None, 1)
    assert (fallen.certificate is not None) == to_former
    assert fallen.since_us == 7
