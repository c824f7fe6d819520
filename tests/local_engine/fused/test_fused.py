"""Fused steps against torch's, alone and in whole decoders, run by Triton's interpreter."""

# ruff: noqa: E402 - kernels are imported only where they can be run

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.local_engine.interpreter import require_interpreter

require_interpreter()

from local_engine import feed_forward
from local_engine.batch import Batch, Segment
from local_engine.fused import paths, triton_steps
from local_engine.kv import KvShape, PagedKv
from local_engine.loader import LoadedModel

Load = Callable[[str], LoadedModel]
CPU = torch.device("cpu")
STEP = [Segment([3], 5, (9,)), Segment([5, 2], 17, (11,)), Segment([1, 4], 0, tuple(range(6, 30)))]


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch, loaded: Load) -> Iterator[Callable[[str], LoadedModel]]:
    """Return loaded models whose small steps are fused until the test ends."""
    monkeypatch.setattr(feed_forward, "steps_for", lambda *kind: triton_steps)

    def load(kind: str) -> LoadedModel:
        model = loaded(kind)
        monkeypatch.setattr(model.decoder, "_steps", triton_steps)
        return model

    return load


def logits(model: LoadedModel) -> tuple[Tensor, Tensor]:
    """Return the logits of a mixed step over a cache of random values, and its keys after."""
    decoder = model.decoder
    cache = PagedKv(KvShape.of(decoder.config), 6, torch.float32, CPU)
    generator = torch.Generator().manual_seed(1)
    for store in (*cache.keys, *cache.values):
        store.copy_(torch.randn(store.shape, generator=generator))
    batch = Batch(STEP, cache)
    found = decoder.forward(batch, cache, batch.last)
    return found, torch.stack([*cache.keys, *cache.values])


@pytest.mark.parametrize("kind", ["llama", "llama3", "qwen2", "qwen3"])
def test_a_decoder_says_the_same_with_fused_steps(
    loaded: Load, fused: Callable[[str], LoadedModel], kind: str
) -> None:
    wanted, kept = logits(loaded(kind))
    found, kept_too = logits(fused(kind))

    assert torch.allclose(found, wanted, atol=2e-4)
    assert torch.allclose(kept_too, kept, atol=1e-4)


@pytest.mark.parametrize("width", [16, 100, 2100])
def test_a_sum_and_its_norm_are_right_at_every_width(width: int) -> None:
    x, delta, weight = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(width))
    total, out = triton_steps.add_norm(x, delta, weight[0], 1e-5)
    same, alone = triton_steps.add_norm(x, None, weight[0], 1e-5)

    assert torch.equal(total, x + delta)
    assert same is x
    for found, wanted in ((out, x + delta), (alone, x)):
        normed = torch.nn.functional.rms_norm(wanted, (width,), weight[0], 1e-5)
        assert torch.allclose(found, normed, atol=1e-5)


def test_steps_are_tried_on_a_device_before_they_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(paths, "has_fused", paths.has_fused.__wrapped__)
    assert paths.has_fused(CPU)
    assert not paths.takes_fused(CPU)
    right = triton_steps.gate

    def broken(*inputs: object, **rest: object) -> Tensor:
        raise RuntimeError("no such instruction")

    def wrong(both: Tensor, *, is_gelu: bool) -> Tensor:
        return right(both, is_gelu=not is_gelu)

    for bad in (broken, wrong):
        monkeypatch.setattr(triton_steps, "gate", bad)
        assert not paths.has_fused(CPU)
    assert "no such instruction" in caplog.text
    assert "off by" in caplog.text
