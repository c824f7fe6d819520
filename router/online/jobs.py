"""Work too heavy to be done in passing, and when it is due: to train, to weigh what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from router.guarantee import Floor, draws_needed, share_of_look
from router.online.standing import Standing, Step, Terms
from router.online.traffic import Asked, drawn

LEASE_US = 600 * 1_000_000
"""A training that nobody has said to be at work for so long has died with its machine."""

MOST_LOOKS = 3
"""A candidate that has not won by then never will, as far as anybody can tell in time."""

_MORE = 2.0
_FRESH = 1.5


@dataclass(frozen=True, slots=True)
class Job:
    """`train` on the audits from `since_us` to `until_us`, or `weigh` a candidate on them."""

    kind: Literal["train", "weigh"]
    since_us: int
    until_us: int
    audits: int


def next_job(
    requests: Sequence[Asked], standing: Standing, terms: Terms, now_us: int
) -> Job | None:
    """Return the job that is due, None where none is. `requests` are those that count."""
    if standing.stage == "rules" or terms.bundle or not requests:
        return None
    audits = drawn(requests)
    if standing.candidate is not None:
        return _weighing(audits, standing, terms)
    return _training(audits, standing, terms, now_us)


def is_complete(request: Asked, terms: Terms) -> bool:
    """Return whether every tier's draft was scored, so that all may be learnt from it."""
    told = (*request.drafts, *request.beside)
    scored = {seen.model for seen in told if seen.score is not None}
    return scored >= set(terms.judged)


def _training(audits: Sequence[Asked], standing: Standing, terms: Terms, now_us: int) -> Job | None:
    complete = [each for each in audits if is_complete(each, terms)]
    # One that died, unlike one that failed, is begun again with what there is.
    more = 1.0 if standing.training_us else _MORE
    wanted = max(float(terms.train_from), more * standing.trained_on)
    if not terms.may_train or len(complete) < wanted:
        return None
    if standing.training_us and now_us - standing.training_us < LEASE_US:
        return None
    return Job("train", complete[0].at_us, complete[-1].at_us, len(complete))


def _weighing(audits: Sequence[Asked], standing: Standing, terms: Terms) -> Job | None:
    assert standing.candidate is not None, "only a candidate is weighed"
    after_us = int(standing.candidate["until_us"])
    fresh = [each for each in audits if each.at_us > after_us]
    wanted = max(float(terms.certify_from), _FRESH * standing.candidate.get("looked_at", 0))
    if terms.floor is not None:
        error = share_of_look(terms.floor.error, standing.looks + 1)
        wanted = max(wanted, draws_needed(Floor(terms.floor.max_loss, 1.0 - error)))
    if len(fresh) < wanted:
        return None
    return Job("weigh", after_us + 1, fresh[-1].at_us, len(fresh))


def step_of_weighing(
    found: Mapping[str, Any], standing: Standing, terms: Terms, audits: int
) -> Step:
    """Return what is made of a candidate that was weighed on so many audits.

    `found` has `why_not` alone where it could not be weighed.
    """
    assert standing.candidate is not None, "only a candidate is weighed"
    told: dict[str, Any] = {"audits": audits, "spent": terms.floor is not None}
    told |= {name: found[name] for name in ("usd", "quality", "reference_share") if name in found}
    if found["why_not"] is not None:
        is_final = int(standing.candidate.get("looks", 0)) + 1 >= MOST_LOOKS
        return Step(
            "declined", f"on {audits} audits: {found['why_not']}", told | {"is_final": is_final}
        )
    cost = "{:+.6f} [{:+.6f}, {:+.6f}]".format(*found["usd"])
    path, identity = standing.candidate["path"], standing.candidate["id"]
    told["bundle"] = {
        "path": path,
        "id": identity,
        "rate": found["rate"],
        "early": found.get("early"),
    }
    if terms.floor is not None:
        told["certificate"] = {
            **found["certificate"],
            "max_loss": terms.floor.max_loss,
            "certainty": terms.floor.certainty,
            "look": standing.looks + 1,
        }
    return Step("promoted", f"it wins on {audits} audits: dollars a request {cost}", told)
