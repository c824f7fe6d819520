"""What is reported of a distribution, and what is drawn from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from local_engine.sampler import Draw, sample, uniform
from local_engine.types import Sampling

VOCAB = 50


def logits_of(seed: int, rows: int = 1, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def draw(position: int = 0, seen: tuple[int, ...] = (), top: int = 0, **sampling: Any) -> Draw:
    return Draw(Sampling(**sampling), position, Counter(seen), set(seen), top)


def frequencies(logits: torch.Tensor, count: int, **sampling: Any) -> torch.Tensor:
    """Draw many times, at one position each, and count."""
    draws = [draw(n, seed=1, **sampling) for n in range(count)]
    found = sample(logits.expand(count, -1), draws)
    ids = torch.tensor([d.token for d in found if d is not None])
    return torch.bincount(ids, minlength=VOCAB) / count


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() < 0.03)


def test_greedy_takes_the_likeliest_and_reports_the_raw_distribution() -> None:
    logits = logits_of(1, rows=3)
    found = sample(logits, [draw(temperature=0.0, top=4)] * 3)

    for row, one in zip(logits.log_softmax(-1), found, strict=True):
        assert one is not None
        best = row.topk(4)
        assert one.token == best.indices[0].item()
        assert one.logprob == pytest.approx(best.values[0].item(), abs=1e-5)
        assert one.margin == pytest.approx((best.values[0] - best.values[1]).item(), abs=1e-5)
        assert one.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-4)
        assert [i for i, _ in one.top] == best.indices.tolist()


def test_draws_follow_the_tempered_distribution() -> None:
    logits = logits_of(2)

    found = frequencies(logits, 4000, temperature=1.5)

    assert close(found, (logits[0] / 1.5).softmax(-1))


@pytest.mark.parametrize(
    ("sampling", "warper"),
    [
        ({"top_k": 5}, TopKLogitsWarper(5)),
        ({"top_p": 0.7}, TopPLogitsWarper(0.7)),
        ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    ],
)
def test_cut_offs_leave_what_transformers_leaves(sampling: dict[str, Any], warper: Any) -> None:
    for seed in range(5):
        logits = logits_of(seed, scale=1.5)
        wanted = warper(torch.zeros(1, 1, dtype=torch.int64), logits.clone())[0].softmax(-1)
        found = frequencies(logits, 3000, **sampling)
        assert close(found, wanted)
        assert not found[wanted == 0].any()


def test_the_likeliest_token_survives_every_cut_off() -> None:
    logits = logits_of(3)
    for sampling in ({"top_p": 0.0}, {"min_p": 1.0}, {"top_k": 1}):
        assert frequencies(logits, 20, **sampling)[logits[0].argmax()] == 1.0


def test_penalties_and_bias_shift_the_choice() -> None:
    logits = torch.zeros(1, VOCAB)
    logits[0, :4] = torch.tensor([5.0, 4.5, 4.0, -1.0])

    def chosen(seen: tuple[int, ...], **sampling: Any) -> int:
        found = sample(logits, [draw(seen=seen, temperature=0.0, **sampling)])[0]
        assert found is not None
        return found.token

    assert chosen((0,)) == 0
    assert chosen((0,), presence_penalty=0.6) == 1
    assert chosen((0, 1), presence_penalty=2.0) == 2
    assert chosen((0,), frequency_penalty=0.4) == 0
    assert chosen((0, 0), frequency_penalty=0.4) == 1
    assert chosen((), logit_bias={2: 1.5}) == 2
    assert chosen((), logit_bias={VOCAB + 5: 100.0}) == 0


def test_repetition_penalty_is_the_published_one() -> None:
    logits = logits_of(4)
    seen = (3, 7, 11)
    wanted = RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([seen]), logits.clone())

    found = sample(logits, [draw(seen=seen, temperature=0.0, repetition_penalty=1.3)])[0]

    assert found is not None
    assert found.token == wanted.argmax().item()


def test_sampling_changes_no_logits() -> None:
    logits = logits_of(5, rows=2)
    before = logits.clone()

    sample(logits, [draw(seen=(1,), presence_penalty=2.0, logit_bias={3: 5.0}, top_k=3)] * 2)

    assert torch.equal(logits, before)


@given(seed=st.integers(0, 1000), others=st.integers(0, 6))
def test_a_draw_depends_on_seed_and_position_not_on_neighbours(seed: int, others: int) -> None:
    logits = logits_of(seed)
    mine = draw(seed, seed=seed, temperature=0.8, top_p=0.9, top_k=20)
    neighbours = [replace(mine, position=seed + 1 + n) for n in range(others)]

    alone = sample(logits, [mine])[0]
    crowd = sample(logits.repeat(others + 1, 1), [*neighbours, mine])[-1]

    assert alone is not None
    assert crowd is not None
    assert alone.token == crowd.token


def test_random_numbers_are_spread_evenly_and_fixed_for_ever() -> None:
    values = torch.tensor([uniform(7, n) for n in range(2000)])

    assert 0 <= values.min() < values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.histc(values, 10, 0, 1).min() > 150
    assert uniform(7, 3) == uniform(7, 3) != uniform(7, 4) != uniform(8, 4)


def test_a_row_that_is_not_finite_is_reported_and_spares_its_neighbours() -> None:
    logits = logits_of(6, rows=3)
    logits[1, 4] = float("nan")

    found = sample(logits, [draw(temperature=0.0), draw(temperature=1.0), draw(temperature=0.0)])

    assert [f is None for f in found] == [False, True, False]


def test_the_top_is_as_long_as_asked() -> None:
    found = sample(logits_of(7, rows=2), [draw(top=0), draw(top=20)])

    assert [len(f.top) for f in found if f is not None] == [0, 20]


def packed(allowed: list[int]) -> bytes:
    bits = sum(1 << token for token in allowed)
    return bits.to_bytes((VOCAB + 31) // 32 * 4, "little")


def test_a_mask_comes_after_bias_and_before_cut_offs() -> None:
    logits = logits_of(8)
    allowed = [4, 9, 33]
    wanted = torch.full_like(logits, -torch.inf)
    wanted[0, allowed] = logits[0, allowed]
    wanted = TopPLogitsWarper(0.8)(torch.zeros(1, 1, dtype=torch.int64), wanted)[0].softmax(-1)
    sampling = Sampling(top_p=0.8, seed=1, logit_bias={7: 100.0})
    draws = [replace(draw(n), sampling=sampling, mask=packed(allowed)) for n in range(3000)]

    found = [d for d in sample(logits.expand(3000, -1), draws) if d is not None]

    counts = torch.bincount(torch.tensor([d.token for d in found]), minlength=VOCAB) / 3000
    assert close(counts, wanted)
    assert not any(d.is_forced for d in found)
    assert sample(logits, [replace(draw(), mask=packed([5]))])[0].is_forced  # type: ignore[union-attr]


def test_penalties_temperature_and_cut_offs_come_in_transformers_order() -> None:
    seen = (3, 7, 11)
    for seed in range(3):
        logits = logits_of(seed, scale=2.0)
        chain = [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(12),
            TopPLogitsWarper(0.8),
            MinPLogitsWarper(0.1),
        ]
        scores = logits.clone()
        for one in chain:
            scores = one(torch.tensor([seen]), scores)
        settings = {"temperature": 0.7, "top_k": 12, "top_p": 0.8, "min_p": 0.1}
        sampling = Sampling(repetition_penalty=1.3, seed=2, **settings)
        draws = [replace(draw(n, seen), sampling=sampling) for n in range(3000)]
        found = [d.token for d in sample(logits.expand(3000, -1), draws) if d is not None]
        counts = torch.bincount(torch.tensor(found), minlength=VOCAB) / 3000

        assert close(counts, scores[0].softmax(-1))
        assert not counts[scores[0] == -torch.inf].any()
