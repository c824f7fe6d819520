"""A decoding step in one call of the native loops beside the same layers one by one in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from local_engine import feed_forward
from local_engine.assembly import build_decoder
from local_engine.attention import paths as attention_paths
from local_engine.batch import Batch, Segment
from local_engine.bench.random_model import RandomSource
from local_engine.config import parse_config
from local_engine.kv import Int8Kv, KvShape, PagedKv
from local_engine.model import Decoder
from local_engine.native import find_native
from local_engine.quant import Quantization

pytestmark = pytest.mark.skipif(find_native() is None, reason="native loops cannot be built here")

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
}
WINDOWS = {
    "sliding_window": 20,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "query_pre_attn_scalar": 30,
    "hidden_activation": "gelu_pytorch_tanh",
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"]},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"]},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"]},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        **WINDOWS,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "rope_local_base_freq": 300.0,
        "rope_theta": 9000.0,
        **WINDOWS,
    },
}


class _Source(RandomSource):
    """Weights large enough to matter, norms included."""

    def tensor(self, name: str) -> Tensor:
        if "norm" in name:
            return torch.linspace(0.4, 1.3, self._shapes[name][0]).to(self._dtype)
        return super().tensor(name)


def decoder_of(family: str, scheme: Quantization, dtype: torch.dtype) -> Decoder:
    config = parse_config(Path("random"), SHAPE | FAMILIES[family])
    return build_decoder(config, _Source(config, scheme, CPU, dtype, 0.1))


def step_of(rows: int, cache: PagedKv) -> Batch:
    """Return a step of sequences of all lengths over scattered pages, the cache made anew."""
    generator = torch.Generator().manual_seed(1)
    for pool in (*cache.keys, *cache.values):
        pool.copy_(torch.randn(pool.shape, generator=generator))
    pages = [[3 * n + 3, 3 * n + 1, 3 * n + 2] for n in range(rows)]
    segments = [Segment(p, 5 * n, (7 + n,), unbroken=3) for n, p in enumerate(pages)]
    return Batch(segments, cache)


def told(decoder: Decoder, rows: int) -> tuple[Tensor, Tensor]:
    """Return the logits of a step, and the keys and values after it."""
    cache = PagedKv(KvShape.of(decoder.config), 25, decoder.dtype, CPU)
    batch = step_of(rows, cache)
    logits = decoder.forward(batch, cache, batch.last)
    return logits, torch.stack([*cache.keys, *cache.values])


def without_loops(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch do what lies between the products."""
    monkeypatch.setattr(decoder, "_in_one_call", lambda: None)
    monkeypatch.setattr(decoder, "_steps", None)
    monkeypatch.setattr(feed_forward, "steps_for", lambda *kind: None)
    monkeypatch.setattr(attention_paths, "native_for", lambda device: None)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("scheme", ["int8", "int4-g32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_in_one_call_say_what_they_say_one_by_one(
    family: str, scheme: Quantization, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(family, scheme, torch.float32)
    assert decoder._in_one_call() is not None
    found, kept = told(decoder, rows)
    without_loops(decoder, monkeypatch)

    wanted, kept_too = told(decoder, rows)

    assert torch.allclose(found, wanted, atol=1e-3)
    assert torch.allclose(kept, kept_too, atol=1e-3)


@pytest.mark.parametrize("scheme", ["none", "int8"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_in_bf16_they_agree_to_its_rounding(
    family: str, scheme: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoder_of(family, scheme, torch.bfloat16)
    assert decoder._in_one_call() is not None
    found, kept = told(decoder, 5)
    without_loops(decoder, monkeypatch)

    wanted, kept_too = told(decoder, 5)

    assert ((found - wanted).norm() / wanted.norm()).item() < 0.03
    assert ((kept - kept_too).float().norm() / kept_too.float().norm()).item() < 0.03


def test_steps_of_another_kind_go_layer_by_layer() -> None:
    decoder = decoder_of("llama", "int8", torch.float32)
    whole = decoder._in_one_call()
    assert whole is not None
    shape = KvShape.of(decoder.config)
    cache = PagedKv(shape, 40, torch.float32, CPU)
    chunk = Batch([Segment([1], 0, (5, 6), unbroken=1)], cache)

    assert whole.takes(step_of(8, cache), cache)
    assert not whole.takes(step_of(9, cache), cache)
    assert not whole.takes(chunk, cache)
    rounded = Int8Kv(shape, 40, torch.float32, CPU)
    assert not whole.takes(Batch([Segment([1], 0, (5,))], rounded), rounded)
    assert decoder_of("llama", "none", torch.float32)._in_one_call() is None
    assert decoder_of("llama", "nf4", torch.float32)._in_one_call() is None


def test_layers_that_are_replaced_are_found_anew() -> None:
    decoder = decoder_of("llama", "int8", torch.float32)
    first = decoder._in_one_call()
    assert decoder._in_one_call() is first
    decoder.layers = decoder.layers[:2]

    assert decoder._in_one_call() is not first
    cache = PagedKv(KvShape.of(decoder.config), 25, torch.float32, CPU)
    other = PagedKv(KvShape.of(decoder.config), 25, torch.float32, CPU)
    logits = []
    for each in (cache, other):
        batch = step_of(2, each)
        logits.append(decoder.forward(batch, each, batch.last))
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(torch.stack(cache.keys), torch.stack(other.keys))
