"""What tells whether a stored answer serves: numbers from one question and its neighbours."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import exp, log

from cache.semantic.guards.compose import differs_softly
from cache.semantic.guards.words import read
from cache.semantic.surroundings import NO_RIVAL, Around
from cache.semantic.types import Candidate

NAMES = (
    "similarity", "margin", "share", "odds", "support", "overlap", "coverage", "lengths",
    "unmatched", "soft", "closeness", "centre", "rival", "together", "kin",
)  # fmt: skip
"""The features, in the order of a calibration's weights."""

# Questions of one meaning crowd towards a cosine of 1, where a straight line would not follow.
_TOUCHING, _LEAST_GAP = 1.03, 1e-3
_SHARPNESS = 20.0  # how fast a neighbour's say fades with its distance, per unit of cosine
# Where the answer that nobody has asked for yet is taken to stand, as a rival of those kept.
_UNKNOWN = 0.6
_APART = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Evidence:
    """The candidate that would serve, and what speaks for it.

    `is_shared` says whether neighbours hold equal answers, so that their number counts.
    """

    place: int
    values: tuple[float, ...]
    is_shared: bool

    @property
    def similarity(self) -> float:
        """Return the cosine of the chosen candidate."""
        return self.values[0]


def answer_key(answer: str) -> str:
    """Return a key that is equal for answers that say the same in the same words."""
    plain = _APART.sub(" ", answer.casefold()).strip()
    return blake2b(plain.encode(), digest_size=12).hexdigest()


def weigh(asked: str, candidates: Sequence[Candidate]) -> Evidence:
    """Choose among the candidates by the say of their neighbours, and describe the choice.

    Neighbours with one answer vote together. There must be a candidate.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, candidate in enumerate(candidates):
        groups[candidate.answer_key or f"#{place}"].append(place)
    nearest = max(candidate.similarity for candidate in candidates)
    says = [exp(_SHARPNESS * (candidate.similarity - nearest)) for candidate in candidates]
    chosen = max(groups.values(), key=lambda places: sum(says[place] for place in places))
    place = max(chosen, key=lambda at: candidates[at].similarity)
    best = candidates[place]
    rivals = [c.similarity for at, c in enumerate(candidates) if at not in chosen]
    say = sum(says[at] for at in chosen)
    whole = sum(says) + exp(_SHARPNESS * (_UNKNOWN - nearest))
    similarity = best.similarity
    return Evidence(
        place,
        (
            similarity,
            similarity - max((*rivals, _UNKNOWN)),
            say / whole,
            log(say / (whole - say)),
            log(len(chosen)),
            *_words(asked, best.question),
            -log(max(_TOUCHING - similarity, _LEAST_GAP)),
            *_crowd(best, max(rivals, default=0.0)),
        ),
        is_shared=len(groups) < len(candidates),
    )


def _crowd(best: Candidate, rival: float) -> tuple[float, ...]:
    """Return how the chosen answer and its rivals lie; each alone, where that is not known."""
    around = best.around or Around(best.similarity, max(rival, NO_RIVAL))
    return around.centre, around.rival, around.together, log(around.kin)


def _words(asked: str, stored: str) -> tuple[float, ...]:
    """Return overlap, coverage, length ratio, unmatched words and soft differences."""
    ours, theirs = read(asked), read(stored)
    both, either = len(ours.content & theirs.content), len(ours.content | theirs.content)
    fewer = min(len(ours.content), len(theirs.content))
    return (
        both / either if either else 1.0,
        both / fewer if fewer else 1.0,
        abs(log((len(asked) + 5) / (len(stored) + 5))),
        log(1 + either - both),
        float(differs_softly(ours, theirs)),
    )
