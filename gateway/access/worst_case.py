"""The most that a request may cost: every model it may lead to, at its longest answer.

The prompt is bounded as in `gateway.money.estimate`, so a bill cannot pass
what was set aside for it. What a model's answer is bounded by: the request's
own `max_tokens`, the model's `max_output`, its context window; a machine of
ours by the time that the route allows one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from gateway.money.bounds import rates_of
from gateway.money.estimate import estimate_usage
from gateway.money.prices import PriceBook
from gateway.request import ChatRequest
from policies.rules import RequestFacts, first_match
from policies.schema import Route
from router.types import Capabilities

UNKNOWN_OUTPUT = 131_072
"""Tokens that an answer is taken to have at most where nobody states a bound."""
USUAL_OUTPUT = 512
"""Tokens that a rate limit reserves for an answer whose client set no bound."""


class WorstCase:
    """Bounds requests in nano-dollars. Built anew when a price changes."""

    def __init__(self, prices: PriceBook, capabilities: Mapping[str, Capabilities]) -> None:
        self._rates = {name: rates_of(price) for name, price in prices.prices.items()}
        # What a service tier costs is only looked at where a request asks for one.
        self._served = {
            name: rates_of(price, any_service=True) for name, price in prices.prices.items()
        }
        self._capabilities = capabilities
        self._calls: dict[int, tuple[Route, list[str]]] = {}

    def of(self, request: ChatRequest, route: Route, facts: RequestFacts) -> int:
        """Return the most that a request may cost on a route."""
        if route.rules:
            return self.nano_usd(request, route, models_of(route, facts))
        known = self._calls.get(id(route))
        if known is None or known[0] is not route:
            known = self._calls[id(route)] = route, models_of(route, facts)
        return self.nano_usd(request, route, known[1])

    def nano_usd(self, request: ChatRequest, route: Route, models: Iterable[str]) -> int:
        """Return the most that calling each of `models` once may cost, a hedge included."""
        prompt = request.asked.most_tokens
        choices = request.fields.n or 1
        is_rich = request.is_rich
        is_spoken = "modalities" in request.body
        known_rates = self._served if request.asks_service else self._rates
        bounds: dict[str, int] = {}
        total = 0
        for model in models:
            bound = bounds.get(model)
            if bound is None:
                rates = known_rates[model]
                known = self._capabilities.get(model)
                tokens_in, tokens_out = bounded(prompt, request.max_tokens, known)
                bound = bounds[model] = rates.most_nano(
                    tokens_in,
                    tokens_out * choices,
                    route.timeouts.total,
                    is_rich=is_rich,
                    is_spoken=is_spoken,
                )
            total += bound
        if route.hedge is not None and request.stream:
            total += max(bounds.values(), default=0)
        return total


def models_of(route: Route, facts: RequestFacts, *, without: Set[str] = frozenset()) -> list[str]:
    """Return every call that a request may lead to; a model is there as often as it may be called.

    A judged draft may cost one call of the model that `agreement` asks; each model
    that serves may be retried, and one that is not judged hedged. None of
    `without` serves.
    """
    rule = first_match(route.rules, facts) if route.rules else None
    tiers = route.tiers
    if rule is not None:
        tiers = (rule.model,) if rule.model else rule.tiers or tiers
    tiers = tuple(name for name in dict.fromkeys(tiers) if name not in without)
    second = route.cascade.confidence.second if route.cascade else None
    judged = [second] * (len(tiers) - 1) if second else []
    fallback = [name for name in dict.fromkeys(route.fallback) if name not in {*tiers, *without}]
    hedged = [*tiers[-1:], *fallback] if route.hedge else []
    attempts = route.retries.attempts if route.retries else 1
    return [*(tiers + tuple(fallback)) * attempts, *hedged, *judged]


def expected_tokens(request: ChatRequest, facts: RequestFacts) -> tuple[int, int]:
    """Return about how many tokens a request reads, and at most writes, for a rate limit."""
    tokens_in = facts.input_tokens
    if facts.has_images:  # their bytes are no tokens
        tokens_in = estimate_usage(request.body, "").usage.input
    return tokens_in, (request.max_tokens or USUAL_OUTPUT) * (request.fields.n or 1)


def bounded(prompt: int, asked: int | None, known: Capabilities | None) -> tuple[int, int]:
    """Return a prompt's most tokens and an answer's, within what the model can take and give."""
    context = known.context if known else None
    tokens_in = min(prompt, context) if context is not None else prompt
    return tokens_in, longest_answer(known, asked)


def longest_answer(known: Capabilities | None, asked: int | None = None) -> int:
    """Return the most tokens that a model's answer has, thoughts that nobody sees included."""
    least = asked
    if known is not None:
        for bound in (known.max_output, known.context):
            if bound is not None and (least is None or bound < least):
                least = bound
    return UNKNOWN_OUTPUT if least is None else least
