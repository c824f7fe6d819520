"""What the router is told, and what it answers.

A `Router` belongs to one route. For each request it gives a `Plan`; the caller
does what the plan says (`next`), shows it the tokens of a held draft (`watch`)
and the whole draft (`judge`). The plan does no I/O of its own: a scorer that
needs another model's word gets it through the `Ask` it is handed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from policies.rules import RequestFacts
from router.stakes import Stakes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from router.validators import ToolCall, Wanted


class RouterError(Exception):
    """Root of this package's errors."""


class NoModelLeft(RouterError):
    """Every model that could serve has failed, or none is able to; says why for each."""


class OutcomesError(RouterError):
    """A table that cannot be used; says in which file and row, and what to change."""


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What a provider reports of the tokens it generated, in order.

    Natural logarithms. `margins` are the differences between the two best
    logits, `entropies` in nats; either may be empty where unknown. `source` is
    `raw` for an untouched distribution, `provider` for what an API chose to say.
    """

    logprobs: tuple[float, ...]
    margins: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    source: Literal["raw", "provider"] = "provider"

    @property
    def count(self) -> int:
        """Return how many tokens were reported."""
        return len(self.logprobs)


@dataclass(frozen=True, slots=True)
class Draft:
    """A whole answer not yet accepted. `text` is empty for pure tool calls.

    `tool_calls` counts them; `calls` are those that could be read.
    """

    model: str
    text: str
    finish_reason: str | None
    tool_calls: int = 0
    stats: TokenStats | None = None
    calls: Sequence[ToolCall] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a draft is good enough, how sure that is (0 to 1), and why.

    `servable` is False for a draft that nobody should get even when all else
    has failed: one that is empty, or was cut short. `raw` is the confidence before it was
    calibrated, `expected` what was expected before the model was asked, where known.
    """

    accepted: bool
    confidence: float | None
    reason: str
    servable: bool = True
    raw: float | None = None
    expected: float | None = None


def cut_short(reason: str, confidence: float | None = None) -> Verdict:
    """Return the verdict on a draft stopped before its end: rejected early, or held too long."""
    return Verdict(False, confidence, reason, servable=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt of this request, as the plan needs to know it.

    Exactly one of `verdict` (a draft was judged, or `cut_short`) and `error` (a
    stable word such as `timeout`) is set.
    """

    model: str
    verdict: Verdict | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Call this model. `judged`: hold its draft and ask for a verdict; else send it live.

    `why` is `tier` for the next tier, `fallback` after an error, `control` for a request
    that goes to the reference to measure what the others save, `stay` for a conversation
    kept on the model that has it cached; `reason` says in words what weighed, if it is not the
    order of the tiers.
    """

    model: str
    judged: bool
    why: Literal["tier", "fallback", "control", "stay"] = "tier"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve the draft of attempt number `index`; `degraded` when it had been rejected."""

    index: int
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """A model that cannot serve this request; `reason` is the capability it lacks, one word."""

    model: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do. None means unknown, and is taken as able."""

    context: int | None = None
    max_output: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    logprobs: bool | None = None
    reasoning: bool | None = None


Ask = Callable[[str], Awaitable[Draft | None]]
"""Put this request to another model, outside the cascade; None when that fails."""


class Scorer(Protocol):
    """Says how much a draft is to be trusted: the extension point `confidence`."""

    @property
    def watches(self) -> bool:
        """Return whether `watch` can ever say no."""
        ...

    def watch(self, stats: TokenStats) -> bool:
        """Return False to reject a draft on all of its tokens so far."""
        ...

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft."""
        ...

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        ...


class Plan(Protocol):
    """The course of one request through its tiers."""

    @property
    def skipped(self) -> Sequence[Skip]:
        """Return the models left out because they cannot serve this request."""
        ...

    def watches(self, model: str) -> bool:
        """Return whether `watch` can reject a draft of this model before its end."""
        ...

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        ...

    def next(self, tried: Sequence[Tried]) -> Call | Serve:
        """Return what to do next. Raises NoModelLeft."""
        ...

    def watch(self, draft: Draft) -> bool:
        """Return False to reject the draft under way; `finish_reason` is not known yet."""
        ...

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft."""
        ...


class Features(Protocol):
    """What may be known of a request's meaning; nothing is computed before somebody asks."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """Return the conversation as it was sent."""
        ...

    @property
    def question(self) -> str:
        """Return the text of the last user turn; empty where there is none."""
        ...

    @property
    def wanted(self) -> Wanted:
        """Return what the request asks of the form of its answer."""
        ...

    @property
    def embedder(self) -> str:
        """Return the version of what makes the vector; empty where nothing does."""
        ...

    @property
    def known_vector(self) -> NDArray[np.float32] | None:
        """Return the vector of the question where it has been computed, of unit length."""
        ...

    @property
    def is_drawn(self) -> bool:
        """Return whether the request is one of those drawn, blindly, to learn from."""
        ...

    @property
    def stakes(self) -> Stakes:
        """Return what asking each model costs, where one of them has the conversation cached."""
        ...

    async def vector(self) -> NDArray[np.float32] | None:
        """Compute the vector, once for all who ask; None where it cannot be had."""
        ...


class Router(Protocol):
    """The router of one route."""

    @property
    def wants_vector(self) -> bool:
        """Return whether `start` is to find `features.known_vector` computed, if it can be had."""
        ...

    def start(self, facts: RequestFacts, features: Features | None = None) -> Plan:
        """Begin a request."""
        ...


ModelCapabilities = Mapping[str, Capabilities]
