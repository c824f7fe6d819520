"""Small random checkpoints, prompts, and a bounded wait, shared by the engine's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bench.engine_families import LLAMA3_ROPE, SHAPE
from local_engine.engine import Engine, Generation
from local_engine.types import Finish, GenerationRequest, Sampling, Token

KINDS = ("llama", "llama3", "llama-linear", "qwen2", "qwen3")
GREEDY = Sampling(temperature=0.0)


def build(kind: str) -> PreTrainedModel:
    """Make a random model of a kind, its biases and norms away from zero and one."""
    torch.manual_seed(KINDS.index(kind))
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
        "llama3": lambda: LlamaForCausalLM(
            LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE, attention_bias=True, mlp_bias=True)
        ),
        "llama-linear": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=linear)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=24)),
    }
    model = makers[kind]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.2)
            elif "norm" in name:
                parameter.uniform_(0.7, 1.3)
    return model.eval()


def prompt_of(seed: int, length: int) -> tuple[int, ...]:
    """Draw ordinary token ids."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(6, 300, (length,), generator=generator).tolist())


def ask(
    id: str, prompt: tuple[int, ...], max_tokens: int = 16, sampling: Sampling = GREEDY, **rest: Any
) -> GenerationRequest:
    """Make a request that ignores the end token, so that its length is known."""
    return GenerationRequest(id, prompt, max_tokens, sampling, **{"ignore_end": True, **rest})


async def run(engine: Engine, request: GenerationRequest) -> tuple[list[Token], Finish]:
    """Generate to the end."""
    async with engine.submit(request) as generation:
        tokens = [token async for token in generation]
    assert generation.finish is not None
    return tokens, generation.finish


async def drained(generation: Generation) -> None:
    """Take tokens until there are no more."""
    while await generation.take():
        pass


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until something that another thread or process does has happened."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - other threads and processes set no event
            await asyncio.sleep(0.005)
