"""What each model's answer to a prompt will cost and how long it will take, before it is asked.

The length of the answer is the unknown: its logarithm is linear in the prompt's
structure, with an offset a category; what that leaves unexplained gives the
quantiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from router.learn_table import LearnTable
from router.query import Query
from router.state import State
from router.surface import STRUCTURE, structures
from router.types import RouterError

Floats = NDArray[np.float64]

_UNKNOWN = 300.0  # tokens assumed of an answer where no length was ever seen
_RIDGE, _PRIOR = 10.0, 20.0
_QUANTILES = np.linspace(0.025, 0.975, 20)  # of the residuals that are kept
_P90 = 0.9
_LEAST_CATEGORY = 8
_OUTLIER = 4.0
_CHARS_PER_TOKEN = 4.0


class CostError(RouterError):
    """A cost that cannot be estimated, such as one of a model without a price."""


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per million tokens, and the day they were read. `cached` is for prompt-cache hits."""

    input: float
    output: float
    as_of: date
    cached: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would make a cost NaN or negative."""
        for each in (self.input, self.output, self.cached or 0.0):
            if not 0 <= each < float("inf"):
                raise CostError(f"expected prices from 0, found {each}")

    def of_input(self, cached_share: float) -> float:
        """Return dollars per million input tokens, of which this share is read from a cache."""
        cached = self.input if self.cached is None else self.cached
        return cached_share * cached + (1 - cached_share) * self.input


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Arrays [queries, models], always finite. `latency_s` is 0 where none was ever logged."""

    models: tuple[str, ...]
    usd: Floats
    usd_p90: Floats
    output_tokens: Floats
    output_p90: Floats
    latency_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class CostModel:
    """Lengths, and seconds by length, of several models' answers.

    `weights` [structure + 1, models] gives the log of the length, `offsets`
    [categories, models] is added to it, `residuals` [20, models] are quantiles of
    what is left. `inputs` [models] is each tokeniser's count over our estimate,
    `pace` [2, models] the seconds before the first token and of each.
    """

    models: tuple[str, ...]
    categories: tuple[str, ...]
    middle: Floats
    scale: Floats
    weights: Floats
    offsets: Floats
    residuals: Floats
    inputs: Floats
    pace: Floats

    @classmethod
    def fit(cls, table: LearnTable) -> CostModel:
        """Learn from logged token counts and latencies; those that are missing are assumed.

        A model whose lengths are unknown is taken to write what the others write on
        average, 300 tokens where nothing is known of any.
        """
        plain = structures(table.queries).astype(np.float64)
        middle, scale = plain.mean(0), np.maximum(plain.std(0), 1e-3)
        features = _features(plain, middle, scale)
        lengths = _filled(table.completion_tokens)
        counts = Counter(name for name in table.categories if name is not None)
        names = tuple(sorted(name for name, count in counts.items() if count >= _LEAST_CATEGORY))
        shares = _one_hot(table.categories, names)
        columns = [_length_of(features, shares, lengths[:, m]) for m in range(len(table.models))]
        weights, offsets, residuals = (
            np.stack(each, axis=1) for each in zip(*columns, strict=True)
        )
        return cls(
            models=table.models,
            categories=names,
            middle=middle,
            scale=scale,
            weights=weights,
            offsets=offsets,
            residuals=residuals,
            inputs=_input_ratios(table),
            pace=np.stack([_pace(table, m) for m in range(len(table.models))], axis=1),
        )

    def add_model(self, table: LearnTable) -> CostModel:
        """Return one that also knows the only model of a table; the others stay as they are.

        Without any length it is taken to write what the others write on average. Raises
        CostError for one that it knows already.
        """
        (name,) = table.models
        if name in self.models:
            raise CostError(f"model {name!r} is known already; train again to learn it anew")
        features = _features(structures(table.queries).astype(np.float64), self.middle, self.scale)
        shares = _one_hot(table.categories, self.categories)
        lengths = table.completion_tokens[:, 0]
        if np.isnan(lengths).all():
            found = self.weights.mean(1), self.offsets.mean(1), self.residuals.mean(1)
        else:
            found = _length_of(features, shares, lengths)
        weights, offsets, residuals = (
            np.column_stack([old, new])
            for old, new in zip((self.weights, self.offsets, self.residuals), found, strict=True)
        )
        return replace(
            self,
            models=(*self.models, name),
            weights=weights,
            offsets=offsets,
            residuals=residuals,
            inputs=np.append(self.inputs, _input_ratios(table)),
            pace=np.column_stack([self.pace, _pace(table, 0)]),
        )

    def estimate(
        self,
        queries: Sequence[Query],
        prices: Mapping[str, Price],
        *,
        cached_share: float = 0.0,
    ) -> Costs:
        """Return what these queries would cost at these prices.

        `cached_share` is the part of the input that a provider's prompt cache is
        expected to hold. Raises CostError for a model without a price.
        """
        missing = [name for name in self.models if name not in prices]
        if missing:
            raise CostError(f"expected a price for each model, found none for {', '.join(missing)}")
        if not 0 <= cached_share <= 1:
            raise CostError(f"cached_share: expected 0 to 1, found {cached_share}")
        output, high = self.lengths(queries)
        listed = [prices[name] for name in self.models]
        per_input = np.array([price.of_input(cached_share) for price in listed]) / 1e6
        per_output = np.array([price.output for price in listed]) / 1e6
        asked = _input_tokens(queries)[:, None] * self.inputs * per_input
        return Costs(
            models=self.models,
            usd=asked + output * per_output,
            usd_p90=asked + high * per_output,
            output_tokens=output,
            output_p90=high,
            latency_s=self.pace[0] + output * self.pace[1],
        )

    def lengths(self, queries: Sequence[Query]) -> tuple[Floats, Floats]:
        """Return the mean and the 90 % quantile of the answers' tokens, [queries, models]."""
        features = _features(structures(queries).astype(np.float64), self.middle, self.scale)
        shares = _one_hot([query.category for query in queries], self.categories)
        log = np.clip(features @ self.weights + shares @ self.offsets, 0, 12)
        mean = np.exp(log) * np.exp(self.residuals).mean(0)
        high = np.exp(log + np.quantile(self.residuals, _P90, axis=0))
        bound = np.array([float(query.max_tokens or 1e6) for query in queries])[:, None]
        return np.minimum(mean, bound), np.minimum(np.maximum(high, mean), bound)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return State({"models": list(self.models), "categories": list(self.categories)}, arrays)

    @classmethod
    def from_state(cls, state: State) -> CostModel:
        """Make it again. Raises CostError for what is foreign or damaged."""
        names = {key: state.values.get(key) for key in ("models", "categories")}
        for key, found in names.items():
            if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
                raise CostError(
                    f"cost model: {key!r}: expected a list of names, found {found!r:.60}"
                )
        models, categories = tuple(names["models"] or ()), tuple(names["categories"] or ())
        m, wide = len(models), len(STRUCTURE)
        shapes = ((wide,), (wide,), (wide + 1, m), (len(categories), m), (len(_QUANTILES), m),
                  (m,), (2, m))  # fmt: skip
        arrays = {name: state.arrays.get(name) for name in _ARRAYS}
        for (name, array), shape in zip(arrays.items(), shapes, strict=True):
            if array is None or array.shape != shape or not np.isfinite(array).all():
                raise CostError(f"cost model: {name!r}: expected finite numbers of shape {shape}")
        return cls(models, categories, **arrays)  # type: ignore[arg-type]  # checked above


_ARRAYS = ("middle", "scale", "weights", "offsets", "residuals", "inputs", "pace")


def _features(plain: Floats, middle: Floats, scale: Floats) -> Floats:
    rows = np.clip((plain - middle) / scale, -_OUTLIER, _OUTLIER)
    return np.column_stack([rows, np.ones(len(rows))])


def _one_hot(labels: Sequence[str | None], names: Sequence[str]) -> Floats:
    number = {name: at for at, name in enumerate(names)}
    rows = np.zeros((len(labels), len(names)))
    for row, label in enumerate(labels):
        if label in number:
            rows[row, number[label]] = 1.0
    return rows


def _filled(lengths: Floats) -> Floats:
    """Give a model without any length that of the others, where they were logged."""
    filled = lengths.copy()
    nothing = np.isnan(filled).all(0)
    if nothing.any():
        known = ~np.isnan(filled)
        total, count = np.nansum(filled, 1), known.sum(1)
        means = np.divide(total, count, out=np.full(len(filled), np.nan), where=count > 0)
        filled[:, nothing] = means[:, None]
    return filled


def _length_of(features: Floats, shares: Floats, lengths: Floats) -> tuple[Floats, Floats, Floats]:
    """Return weights, offsets and residual quantiles of one model."""
    known = ~np.isnan(lengths)
    weights: Floats = np.zeros(features.shape[1])
    offsets: Floats = np.zeros(shares.shape[1])
    weights[-1] = float(np.log(_UNKNOWN))
    if not known.any():
        return weights, offsets, np.linspace(-1.5, 1.5, len(_QUANTILES))
    x, s, y = features[known], shares[known], np.log(np.maximum(lengths[known], 1))
    cost = np.diag(np.append(np.full(x.shape[1] - 1, _RIDGE), 1e-6))
    fitted = np.asarray(np.linalg.solve(x.T @ x + cost, x.T @ y), dtype=np.float64)
    left: Floats = y - x @ fitted
    offsets = np.asarray(s.T @ left / (s.sum(0) + _PRIOR), dtype=np.float64)
    return fitted, offsets, np.quantile(left - s @ offsets, _QUANTILES)


def _input_tokens(queries: Sequence[Query]) -> Floats:
    counts = [len(q.text) / _CHARS_PER_TOKEN if q.input_tokens is None else q.input_tokens
              for q in queries]  # fmt: skip
    return np.array(counts, dtype=np.float64)


def _input_ratios(table: LearnTable) -> Floats:
    estimate = np.maximum(_input_tokens(table.queries), 1)[:, None]
    ratio = table.prompt_tokens / estimate
    found = np.ones(len(table.models))
    for model in range(len(table.models)):
        known = ratio[~np.isnan(ratio[:, model]), model]
        if len(known):
            found[model] = np.median(known)
    return found


def _pace(table: LearnTable, model: int) -> Floats:
    """Return seconds at the start and per token, neither negative."""
    tokens, seconds = table.completion_tokens[:, model], table.latency_s[:, model]
    known = ~np.isnan(tokens) & ~np.isnan(seconds)
    if not known.any():
        return np.zeros(2)
    t, s = tokens[known], seconds[known]
    spread = float(((t - t.mean()) ** 2).sum())
    slope = float(((t - t.mean()) * (s - s.mean())).sum()) / spread if spread > 0 else 0.0
    slope = max(0.0, slope)
    return np.array([max(0.0, float(s.mean()) - slope * float(t.mean())), slope])
