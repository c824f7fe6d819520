"""Quantized products against fp32, alone and in a whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from local_engine.checkpoint import find_checkpoint
from local_engine.engine import Engine
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.native import find_native
from local_engine.quant import (
    Int8Head,
    Int8Linear,
    PlainLinear,
    make_head,
    make_linear,
)
from local_engine.quant.int8 import has_integer_product, int8_pack, split_row
from tests.local_engine.support import ask, prompt_of, run

INT8 = LoadOptions("int8", device=torch.device("cpu"))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave products to torch, as where there is no compiler."""
    monkeypatch.setattr("local_engine.quant.int8.native_for", lambda device: None)


def logprobs_of(model: LoadedModel, prompts: list[tuple[int, ...]]) -> torch.Tensor:
    """Return the log-probabilities after each prompt."""
    from local_engine.batch import Batch, Segment
    from local_engine.kv import KvShape, PagedKv

    rows = []
    for prompt in prompts:
        shape = KvShape.of(model.config)
        cache = PagedKv(shape, 4, model.decoder.dtype, model.decoder.device)
        batch = Batch([Segment(range(1, 5), 0, prompt)], cache)
        rows.append(model.decoder.forward(batch, cache, batch.last)[0].log_softmax(-1))
    return torch.stack(rows)


def test_rounding_to_int8_stays_within_half_a_step() -> None:
    weight = random(48, 64)
    quantized = Int8Linear(*int8_pack(weight))

    error = (quantized.weight.float() * quantized.scale.float()[:, None] - weight).abs()

    # The scale itself is bf16, so the largest value may be cut by 2^-9 of it.
    bound = quantized.scale.float() * 0.5 + weight.abs().amax(1) * 2**-8
    assert bool((error.amax(1) <= bound).all())


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 100, 200])
def test_int8_products_are_close_for_few_rows_and_for_many(rows: int) -> None:
    weight, bias, x = random(96, 64), random(96, seed=1), random(rows, 64, seed=2)
    wanted = x @ weight.T + bias

    found = make_linear(weight, bias, "int8")(x)

    assert found.dtype == x.dtype
    assert ((found - wanted).norm() / wanted.norm()).item() < 0.015


def test_channels_of_zeros_stay_zero() -> None:
    weight = random(32, 64)
    weight[5] = 0.0

    found = Int8Linear(*int8_pack(weight))(random(2, 64))

    assert not found[:, 5].any()
    assert bool(torch.isfinite(found).all())


def test_largest_outputs_of_the_head_are_exact_in_its_weights() -> None:
    weight, x = random(500, 64) * 3, random(4, 64, seed=3)
    head = make_head(weight, "int8")
    assert isinstance(head, Int8Head)
    wanted = x @ (head.weight.float() * head.scale.float()[:, None]).T

    found = head(x)

    best = wanted.topk(20).indices
    assert torch.allclose(found.gather(1, best), wanted.gather(1, best), rtol=2e-5, atol=1e-3)
    assert (found - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_unquantized_products_are_the_plain_ones() -> None:
    weight, x = random(8, 64), random(3, 64)

    assert isinstance(make_head(weight, "none"), PlainLinear)
    assert torch.equal(make_linear(weight, None, "none")(x), x @ weight.T)
    assert make_linear(weight, None, "none").nbytes == 8 * 64 * 4
    assert make_linear(weight, None, "int8").nbytes == 8 * 64 + 8 * 2


@pytest.mark.parametrize("rows", [1, 16, 17])
@pytest.mark.parametrize("has_kernel", [True, False])
def test_without_integer_products_the_result_is_the_same(
    rows: int, has_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, x = random(96, 64), random(rows, 64, seed=5)
    wanted = Int8Linear(*int8_pack(weight))(x)
    head = make_head(weight, "int8")(x)
    without_native(monkeypatch)
    monkeypatch.setattr("local_engine.quant.int8.has_integer_product", lambda device: False)
    monkeypatch.setattr("local_engine.quant.int8.has_int8_kernel", lambda device: has_kernel)
    layer = Int8Linear(*int8_pack(weight))

    assert not layer.has_planes
    assert torch.allclose(layer(x), wanted, rtol=0.02, atol=0.1)
    best = head.topk(20).indices
    assert torch.allclose(
        make_head(weight, "int8")(x).gather(1, best), head.gather(1, best), atol=2e-3
    )


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("rows", [6, 64])
def test_integer_products_are_exact_in_the_weights(
    rows: int, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_native:
        without_native(monkeypatch)
        if not has_integer_product("cpu"):
            pytest.skip("this processor or this torch has no product that adds up in 32 bits")
    elif find_native() is None:
        pytest.skip("the native loops could not be built here")
    weight, x = random(96, 640), random(rows, 640, seed=6)
    x[3] *= 1e6
    x[4] = 0.0
    x[5, 7] = 500.0
    layer = Int8Linear(*int8_pack(weight))
    wanted = x @ (layer.weight.float() * layer.scale.float()[:, None]).T

    found = layer(x)

    peaks = x.abs().amax(-1, keepdim=True) * 640**0.5 * weight.abs().max()
    assert found.is_contiguous()
    assert bool(((found - wanted).abs() <= 3e-5 * peaks + 1e-6).all())
    assert not found[4].any()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_int8_model_is_close_to_fp32(
    kind: str, checkpoint: Callable[[str], Path], loaded: Callable[[str], LoadedModel]
) -> None:
    prompts = [prompt_of(n, 12) for n in range(20)]
    exact = logprobs_of(loaded(kind), prompts)
    rounded = logprobs_of(load_model(checkpoint(kind), INT8), prompts)

    divergence = (exact.exp() * (exact - rounded)).sum(-1)
    assert 0 <= divergence.mean().item() < 0.01
    assert (exact.argmax(-1) == rounded.argmax(-1)).float().mean().item() >= 0.8


async def test_shipped_model_answers_alike_in_int8() -> None:
    path = find_checkpoint("demo/tiny")
    replies = []
    for options in (LoadOptions(device=torch.device("cpu")), INT8):
        model = load_model(path, options)
        async with Engine(model) as engine:
            texts = []
            for n in range(10, 30):
                prompt = model.tokenizer.encode(
                    f"<|user|>What is {n} + 7?<|end|><|assistant|>", add_special=False
                )
                tokens, _ = await run(engine, ask(str(n), prompt, 12, ignore_end=False))
                texts.append("".join(t.text for t in tokens))
            replies.append(texts)

    agreeing = sum(a == b for a, b in zip(*replies, strict=True))
    assert agreeing >= 17


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bytes_of_one_row_are_its_numbers_to_half_a_step(dtype: torch.dtype) -> None:
    x = random(1, 500).to(dtype)
    x[0, 0], x[0, 1] = 9.0, -9.0
    planes, step = split_row(x)
    low, high = (planes.double() - 128).unbind(0)

    assert planes.dtype == torch.uint8
    assert ((256 * high + low) * step - x[0].double()).abs().max() <= 0.51 * step
    assert split_row(torch.zeros(1, 3))[0].eq(128).all()


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
@pytest.mark.parametrize("is_native", [True, False])
def test_one_row_that_is_no_number_gives_none(
    odd: float, is_native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_native:
        without_native(monkeypatch)
    x = random(1, 64)
    x[0, 3] = odd

    assert not Int8Linear(*int8_pack(random(32, 64)))(x).isfinite().any()
