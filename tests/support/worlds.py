"""A world whose truth is known: models of different ability on questions of different difficulty.

Estimates are the exact posterior means, so every one of them is calibrated.
"""

from __future__ import annotations

import numpy as np

from router.value import Lineup
from router.value_fit import Records

_GRID = np.linspace(-4.0, 4.0, 81)
_SIGNAL = 1.2


def world(
    count: int,
    *,
    abilities: tuple[float, ...] = (-0.5, 0.8, 2.5),
    usd: tuple[float, ...] = (0.02, 0.2, 1.0),
    hint: float = 1.0,
    depth: int = 3,
    seed: int = 0,
) -> Records:
    """Return records of a line-up whose last model is the reference; others are judged.

    `hint` is the noise with which the difficulty shows in the question.
    """
    draw = np.random.default_rng(seed)
    difficulty = draw.normal(size=count)
    shown = difficulty + hint * draw.normal(size=count)
    right = 1 / (1 + np.exp(difficulty[:, None] - np.array(abilities)))
    score = (draw.random(right.shape) < right).astype(float)
    signal = _SIGNAL * (2 * score - 1) + draw.normal(size=score.shape)
    prior = np.exp(-0.5 * _GRID**2 - 0.5 * ((shown[:, None] - _GRID) / hint) ** 2)
    by_difficulty = 1 / (1 + np.exp(_GRID[:, None] - np.array(abilities)))
    lineup = Lineup(
        tuple(f"m{place}" for place in range(len(abilities))),
        len(abilities) - 1,
        frozenset(range(len(abilities) - 1)),
    )
    drafts = {
        calls: _posterior(calls, prior, by_difficulty, signal) for calls in lineup.courses(depth)
    }
    first = (prior @ by_difficulty) / prior.sum(axis=1, keepdims=True)
    price = np.tile(usd, (count, 1))
    return Records(lineup, first, drafts, price, score, paid=price)


def _posterior(calls, prior, by_difficulty, signal):
    weight = prior.copy()
    likely = {}
    for model in calls:
        right = np.exp(-0.5 * (signal[:, [model]] - _SIGNAL) ** 2) * by_difficulty[:, model]
        wrong = np.exp(-0.5 * (signal[:, [model]] + _SIGNAL) ** 2) * (1 - by_difficulty[:, model])
        likely[model] = right / (right + wrong)
        weight *= right + wrong
    total = weight.sum(axis=1)
    found = [(weight * likely[model]).sum(axis=1) / total for model in calls]
    return np.stack(found, axis=1) if found else np.zeros((len(prior), 0))
