"""Whether a conversation had better stay on the model that has its prompt cached.

The router decides; here is kept who has read which conversation, and reckoned what
leaving would forfeit. A route of one model, or of models whose prompt caches
save nothing, never comes here, nor does a prompt too short to be cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.attempt import Attempt
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.money.price import Price
from gateway.money.prices import PriceBook
from gateway.money.usage import Usage
from gateway.money.warmth import Warm, WarmPrefixes, forfeit_usd, guess_prompt
from policies.schema import Policy, Route
from router.stakes import NO_STAKES, Stake, Stakes

_USUAL_ANSWER = 300
"""Tokens of an answer where the conversation has none yet to go by."""


class Affinity:
    """The memory of one process, and the prices to weigh it by."""

    def __init__(self, policy: Policy, prices: PriceBook, clock: Clock) -> None:
        self._read = WarmPrefixes()
        self._policy = policy
        self._clock = clock
        self.use(prices)

    def use(self, prices: PriceBook) -> None:
        """Weigh by these prices from now on."""
        self._prices = prices
        self._lineups = {
            name: models
            for name, route in self._policy.routes.items()
            if len(models := _cascaded(route)) > 1
            and any(_saves(prices.for_model(model)) for model in models)
        }

    def stakes(self, entry: Entry) -> Stakes:
        """Return what asking each model of the route costs, if one has read this conversation.

        Models that the request is not to be put to are left out.
        """
        models = self._lineups.get(entry.route_name)
        body = entry.request.body
        if models is None or guess_prompt(body) is None:
            return NO_STAKES
        warm = self._read.where(entry.caller.tenant, body, self._clock.tick())
        open_to_it = [model for model in models if model not in entry.left_out]
        if not any(model in warm for model in open_to_it):
            return NO_STAKES
        tokens = max(entry.facts.input_tokens, *(each.tokens for each in warm.values()))
        answer = _answer_tokens(body, entry.facts.max_tokens)
        return {model: self._stake(model, tokens, answer, warm.get(model)) for model in open_to_it}

    def note(self, attempt: Attempt, entry: Entry) -> None:
        """Remember what a model has read, now that it has answered."""
        models = self._lineups.get(entry.route_name)
        if models is None or attempt.model not in models:
            return
        body = entry.request.body
        if (guessed := guess_prompt(body)) is None:
            return
        told = _cached_tokens(attempt.usage, self._prices.for_model(attempt.model), guessed)
        # No prompt has more tokens than bytes, whatever a server reports.
        if tokens := min(told, entry.request.size):
            self._read.note(entry.caller.tenant, body, attempt.model, tokens, self._clock.tick())

    def _stake(self, model: str, tokens: int, answer: int, warm: Warm | None) -> Stake:
        price = self._prices.for_model(model).at(tokens)
        usd = float(price.input * tokens + price.output * answer + price.per_call)
        if warm is None:
            return Stake(usd)
        return Stake(usd, float(forfeit_usd(warm.tokens, model, self._prices, warm.warmth)))


def _cascaded(route: Route) -> tuple[str, ...]:
    """Return the models that the route, or a rule of it, chooses among by their order."""
    lists = [route.tiers, *(rule.tiers or () for rule in route.rules)]
    return tuple(dict.fromkeys(name for names in lists if len(names) > 1 for name in names))


def _saves(price: Price) -> bool:
    """Return whether reading a cached prompt is cheaper at any length."""
    return any(
        each.cached_input < each.input for each in (price, *(tier for _, tier in price.tiers))
    )


def _cached_tokens(usage: Usage | None, price: Price, guessed: int) -> int:
    """Return how much of a prompt is cached now that it was read.

    Where writing has a price of its own, it is what was read or written there, and told;
    elsewhere the provider keeps every prompt of some length by itself.
    """
    if price.cache_write <= price.input:
        return guessed if usage is None else usage.prompt
    if usage is None:
        return 0
    return usage.cached_input + usage.cache_write + usage.cache_write_1h


def _answer_tokens(body: Mapping[str, Any], most: int | None) -> int:
    """Return about how long the answer will be: as long as the conversation's others were."""
    messages: Sequence[Mapping[str, Any]] = body["messages"]
    answers = [m.get("content") for m in messages if m.get("role") == "assistant"]
    sizes = [len(answer) // 4 for answer in answers if isinstance(answer, str)]
    usual = sum(sizes) // len(sizes) if sizes else _USUAL_ANSWER
    return usual if most is None else min(usual, most)
