"""How much a draft is to be trusted, from its tokens or from a second opinion.

Whatever the scorer, four kinds of draft are never good enough: an empty one,
one that was not finished, one that a filter stopped, and one that refuses. A
tier above may do better, and costs nothing where it would refuse, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.cascade import Confidence
from router.answers import same_answer
from router.types import Ask, Draft, TokenStats, Verdict
from router.usability import is_servable, why_useless


class LogprobScorer:
    """Trust a draft by the log-probabilities of its own tokens.

    The confidence is exp(q-quantile): with q = 0 the probability of the least
    likely token. A low quantile finds the one doubtful word that sum and mean
    drown, the sum in length and the mean in boilerplate (Gupta et al. 2024,
    "Language Model Cascades: Token-level uncertainty and beyond").
    """

    needs_stats = True

    def __init__(self, confidence: Confidence) -> None:
        self._threshold = confidence.threshold
        self._quantile = confidence.quantile
        self._early = confidence.early

    @property
    def watches(self) -> bool:
        """Return whether a draft may be rejected before its end."""
        return self._early is not None

    def watch(self, stats: TokenStats) -> bool:
        """Return False once enough tokens say that this draft will not do."""
        early = self._early
        if early is None or stats.count < early.after_tokens:
            return True
        return trust(stats.logprobs, self._quantile) >= early.threshold

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft; no other model is asked."""
        if (unusable := never_good_enough(draft)) is not None:
            return unusable
        if draft.stats is None or not draft.stats.count:
            return Verdict(False, None, "the model reported no token log-probabilities")
        confidence = trust(draft.stats.logprobs, self._quantile)
        return _compared(confidence, self._threshold)


class AgreementScorer:
    """Trust a draft when a second, cheap model comes to the same answer."""

    needs_stats = False
    watches = False

    def __init__(self, confidence: Confidence) -> None:
        if confidence.second is None:
            raise ValueError(
                "confidence agreement needs a second model to ask; name it with `with: MODEL`"
            )
        self._second = confidence.second
        self._threshold = confidence.threshold

    def watch(self, stats: TokenStats) -> bool:
        """Let every draft come to its end."""
        return True

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Put the request to the second model, and compare the final answers."""
        if (unusable := never_good_enough(draft)) is not None:
            return unusable
        if draft.tool_calls:
            return Verdict(False, None, "tool calls are not compared")
        other = await ask(self._second)
        if other is None:
            return Verdict(False, None, f"{self._second} gave no second opinion")
        if (unusable := never_good_enough(other)) is not None:
            return Verdict(False, None, f"the reply of {self._second} is no use: {unusable.reason}")
        if same_answer(draft.text, other.text):
            return _compared(1.0, self._threshold, f"{self._second} says the same")
        return _compared(0.0, self._threshold, f"{self._second} says otherwise")


def trust(logprobs: Sequence[float], quantile: float) -> float:
    """Return exp of the quantile of natural log-probabilities: 0 to 1; 0 where one is no number.

    The quantile is the value at rank ⌊q·(n-1)⌋: one that was really seen.
    """
    if math.isnan(sum(logprobs)):
        return 0.0
    lowest = min(logprobs) if quantile == 0.0 else _ranked(logprobs, quantile)
    return math.exp(min(lowest, 0.0))


def _ranked(logprobs: Sequence[float], quantile: float) -> float:
    return sorted(logprobs)[int(quantile * (len(logprobs) - 1))]


def never_good_enough(draft: Draft) -> Verdict | None:
    """Return the verdict on a draft that no confidence can save, else None."""
    reason = why_useless(draft.text, draft.finish_reason, tool_calls=draft.tool_calls)
    return None if reason is None else Verdict(False, None, reason, servable=is_servable(reason))


def _compared(confidence: float, threshold: float, found: str = "") -> Verdict:
    if confidence >= threshold:
        return Verdict(True, confidence, found or "confident")
    return Verdict(False, confidence, found or f"confidence below {threshold:g}")
