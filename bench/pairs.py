"""Which two cheap models to let agree, chosen on outcomes that are not reported on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

from router.answers import Answer, final_answer
from router.outcomes import Outcomes

Prices = Mapping[str, Mapping[str, float]]
"""Dollars per million tokens: by model, then `input` and `output`."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A cascade of two small models and a large one, as it would have done on a table."""

    small: str
    second: str
    accuracy: float
    cost_share: float
    escalated: float


@dataclass(frozen=True, slots=True)
class _Replies:
    """Replies of one model, in the order of the queries; costs in dollars."""

    answers: Sequence[Answer | None]
    scores: Sequence[float]
    costs: Sequence[float]


def choose_pair(
    table: Outcomes, prices: Prices, *, large: str, max_price_share: float, max_loss: float
) -> tuple[Pair, float]:
    """Return the cheapest cascade that loses at most `max_loss` of accuracy, and large's accuracy.

    The pool is every model whose output costs at most `max_price_share` of the
    large one's. Where no pair is good enough, the most accurate is returned.
    """
    limit = prices[large]["output"] * max_price_share
    names = {model for model in table.column("model") if model in prices}
    pool = {model for model in names if prices[model]["output"] <= limit}
    replies = _by_model(table, prices, {*pool, large})
    if large not in replies:
        raise ValueError(f"the table has no complete replies of {large}")
    reference = replies.pop(large)
    pairs = list(_simulated(replies, reference))
    if not pairs:
        raise ValueError(f"fewer than two models cost at most {limit:g} $ per million tokens")
    floor = _mean(reference.scores) - max_loss
    good = [pair for pair in pairs if pair.accuracy >= floor - 1e-12]
    best = min(good, key=_cheapest) if good else max(pairs, key=lambda pair: pair.accuracy)
    return best, _mean(reference.scores)


def _cheapest(pair: Pair) -> tuple[float, float, str, str]:
    return pair.cost_share, -pair.accuracy, pair.small, pair.second


def _simulated(replies: Mapping[str, _Replies], large: _Replies) -> Iterator[Pair]:
    whole = sum(large.costs)
    for small, second in permutations(sorted(replies), 2):
        one, other = replies[small], replies[second]
        agreed = [
            a is not None and b is not None and a.agrees(b)
            for a, b in zip(one.answers, other.answers, strict=True)
        ]
        scores = [one.scores[i] if ok else large.scores[i] for i, ok in enumerate(agreed)]
        upward = sum(large.costs[i] for i, ok in enumerate(agreed) if not ok)
        cost = sum(one.costs) + sum(other.costs) + upward
        yield Pair(small, second, _mean(scores), cost / whole, 1 - _mean(agreed))


def _by_model(table: Outcomes, prices: Prices, models: set[str]) -> dict[str, _Replies]:
    """Return the replies of those models that answered every query."""
    rows: dict[str, dict[str, tuple[Answer | None, float, float]]] = {}
    for row in table:
        if row.model in models and row.response is not None and row.score is not None:
            price = prices[row.model]
            tokens = (row.prompt_tokens or 0) * price["input"]
            tokens += (row.completion_tokens or 0) * price["output"]
            found = (final_answer(row.response), row.score, tokens / 1e6)
            rows.setdefault(row.model, {})[row.query_id] = found
    queries = sorted(set(table.column("query_id")))
    return {
        model: _Replies(*(list(c) for c in zip(*(found[q] for q in queries), strict=True)))
        for model, found in rows.items()
        if len(found) == len(queries)
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
