"""Small random checkpoints, prompts, and a bounded wait, shared by the engine's tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from local_engine.engine import Engine, Generation
from local_engine.types import Finish, GenerationRequest, Sampling, Token

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = ["the quick brown fox jumps over the lazy dog", "zwölf große Füchse 🦊 17 + 25 = 42"] * 8
SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
KINDS = ("llama", "llama3", "llama-linear", "qwen2", "qwen3")
GREEDY = Sampling(temperature=0.0)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


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


def write_tokenizer(directory: Path) -> None:
    """Train and write a byte-level tokenizer with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE["vocab_size"],
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


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
