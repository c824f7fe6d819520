"""What has to be right before it is worth timing: kernels beside torch, answers beside a CPU's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from local_engine.assembly import build_decoder
from local_engine.attention import paths as attention_paths
from local_engine.bench.loops import EngineLoop, prompt_of, request_of
from local_engine.bench.random_model import RandomSource, dressed
from local_engine.bench.rows import Row
from local_engine.config import ModelConfig, parse_config
from local_engine.fused import paths as fused_paths
from local_engine.loader import LoadedModel
from local_engine.quant import paths as product_paths
from local_engine.types import EngineLimits

TINY = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
    "tie_word_embeddings": False,
    "max_position_embeddings": 1024,
}
ANSWER = 24
REQUESTS = 6


def can_check(device: torch.device) -> bool:
    """Tell whether kernels can be run here: on a GPU, or by Triton's interpreter."""
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return find_spec("triton") is not None and (device.type == "cuda" or is_interpreted)


def kernel_checks(device: torch.device) -> Iterator[Row]:
    """Tell how far each set of kernels is from torch, and what is allowed."""
    for name, paths in (
        ("attention", attention_paths),
        ("int8 and 4-bit products", product_paths),
        ("norm, turn and gate", fused_paths),
    ):
        distance = paths.distance(device)
        yield Row(f"{name}: distance from torch", distance, "", paths.TOLERANCE, at_most=True)
    fp8 = product_paths.fp8_distance(device)
    name = "fp8 products: distance from torch"
    yield Row(name, fp8, "", product_paths.TOLERANCE, at_most=True)


def answer_checks(device: torch.device) -> Iterator[Row]:
    """Tell how many answers of a small random model in fp32 are those of the CPU, token by token.

    They decode together, so that chunks, padding and recorded steps all come into it.
    """
    answers = [_answers(_model(place)) for place in (torch.device("cpu"), device)]
    same = sum(a == b for a, b in zip(*answers, strict=True))
    yield Row("answers in fp32 that are the CPU's", same, f"of {REQUESTS}", REQUESTS)


class _Moved(RandomSource):
    """What the CPU draws, whatever the device."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        super().__init__(config, "none", torch.device("cpu"), torch.float32, spread=0.1)
        self._target = device

    def tensor(self, name: str) -> Tensor:
        """Draw a tensor and move it."""
        return super().tensor(name).to(self._target)


def _model(device: torch.device) -> LoadedModel:
    config = parse_config(Path("random"), TINY)
    return dressed(build_decoder(config, _Moved(config, device)))


def _answers(model: LoadedModel) -> list[list[int]]:
    limits = EngineLimits(max_batch=4, prefill_chunk=48)
    loop = EngineLoop(model, limits, time.perf_counter)
    for n in range(REQUESTS):
        loop.add(request_of(prompt_of(model.config.vocab, 9 + 17 * n, n), ANSWER + n))
    found: dict[int, list[int]] = {}
    while loop.live:
        for event in loop.events():
            if event.token is not None:
                found.setdefault(len(event.sequence.request.prompt), []).append(event.token.id)
    return [found[key] for key in sorted(found)]
