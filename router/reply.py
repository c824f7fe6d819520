"""A reply as the scorer sees it: its features by name, in groups that can be left out.

A feature that means nothing for a reply is NaN, which the trees learn from:
that there is no calculation to check is worth knowing, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from router import choices, examples, reply_maths, validators
from router.forms import calls_in
from router.reading import Question, Reading, read_reply
from router.reply_text import ANSWER, SHAPE, answer_features, shape_features
from router.types import Draft, TokenStats
from router.usability import FINISHED

if TYPE_CHECKING:
    from router.outcomes import Outcome

QUANTILES: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.5)
TOKENS: tuple[str, ...] = (
    *(f"logprob_q{round(100 * share):02d}" for share in QUANTILES),
    *("margin", "entropy", "tokens", "finished"),
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPE,
    "answer": ANSWER,
    "maths": reply_maths.NAMES,
    "choice": choices.NAMES,
    "examples": examples.NAMES,
    "validators": validators.NAMES,
    "tokens": TOKENS,
}
NAMES: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)


@dataclass(frozen=True, slots=True)
class TokenSummary:
    """What is kept of a reply's token statistics; NaN where the provider told nothing.

    `quantiles` are those of `QUANTILES`, of natural log-probabilities; `margin`
    and `entropy` are means over the tokens.
    """

    quantiles: tuple[float, ...] = (math.nan,) * len(QUANTILES)
    margin: float = math.nan
    entropy: float = math.nan
    count: float = math.nan

    @classmethod
    def of(cls, stats: TokenStats | None) -> Self:
        """Sum up what a provider reported."""
        if stats is None or not stats.count or math.isnan(sum(stats.logprobs)):
            return cls()
        ordered = sorted(stats.logprobs)
        last = len(ordered) - 1
        quantiles = tuple(_finite(ordered[int(share * last)]) for share in QUANTILES)
        return cls(quantiles, _mean(stats.margins), _mean(stats.entropies), float(stats.count))


def _finite(value: float) -> float:
    return max(-100.0, min(0.0, value))


def _mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else math.nan


@dataclass(frozen=True, slots=True)
class Reply:
    """A draft with what is known of how it came about. `arguments` are those of tool calls."""

    text: str
    finish_reason: str | None = None
    tokens: TokenSummary = TokenSummary()
    calls: Sequence[validators.ToolCall] = ()

    @classmethod
    def of_draft(cls, draft: Draft) -> Self:
        """Return a live draft as a reply."""
        return cls(draft.text, draft.finish_reason, TokenSummary.of(draft.stats), draft.calls)

    @classmethod
    def of_outcome(cls, outcome: Outcome) -> Self | None:
        """Return a logged reply; None where neither its text nor its calls were kept."""
        if outcome.response is None and outcome.tool_calls is None:
            return None
        kept = [
            *(outcome.logprob_q00, outcome.logprob_q05, outcome.logprob_q10),
            *(outcome.logprob_q20, outcome.logprob_q50),
        ]
        summary = TokenSummary(
            tuple(_known(value) for value in kept),
            _known(outcome.margin),
            _known(outcome.entropy),
            _known(outcome.completion_tokens),
        )
        calls = calls_in(outcome.tool_calls)
        return cls(outcome.response or "", outcome.finish_reason, summary, calls)

    def prefix(self, chars: int) -> Self:
        """Return the reply as it was after so many characters."""
        return type(self)(self.text[:chars])


def _known(value: Any) -> float:
    return math.nan if value is None else float(value)


def reply_features(
    question: Question, reply: Reply, wanted: validators.Wanted = validators.NOTHING
) -> tuple[tuple[float, ...], Reading]:
    """Return the features of `NAMES`, and the reading that they were taken from."""
    read = read_reply(reply.text)
    features = (
        *shape_features(question, read),
        *answer_features(question, read),
        *reply_maths.maths_features(question, read),
        *question.choice.features(read.text, read.answer),
        *question.examples.features(reply.text),
        *validators.validator_features(reply.text, reply.calls, wanted),
        *_tokens(reply),
    )
    return features, read


def _tokens(reply: Reply) -> tuple[float, ...]:
    finished = math.nan if reply.finish_reason is None else float(reply.finish_reason in FINISHED)
    tokens = reply.tokens
    return (*tokens.quantiles, tokens.margin, tokens.entropy, tokens.count, finished)
