from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import local_engine.demo
from local_engine.demo.card import card
from local_engine.demo.evaluate import accuracy, replies
from local_engine.demo.export import load_checkpoint
from local_engine.demo.tasks import held_out

CHECKPOINTS = Path(local_engine.demo.__file__).parent / "checkpoints"
SIZES = ("tiny", "small")
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("size", SIZES)
def test_a_shipped_checkpoint_is_complete(size: str) -> None:
    assert {path.name for path in (CHECKPOINTS / size).iterdir()} == FILES
    record = json.loads((CHECKPOINTS / size / "training.json").read_text())
    assert record["size"] == size
    assert "demonstration model" in (CHECKPOINTS / size / "README.md").read_text()


def test_both_checkpoints_stay_under_twenty_megabytes() -> None:
    files = [path for path in CHECKPOINTS.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 20_000_000


@pytest.mark.parametrize("size", SIZES)
def test_transformers_computes_the_same_logits(size: str) -> None:
    network, tokenizer = load_checkpoint(CHECKPOINTS / size)
    reference = AutoModelForCausalLM.from_pretrained(CHECKPOINTS / size, dtype=torch.float32)
    tokens = torch.tensor([tokenizer.encode("<|user|>What is 12 + 7?<|end|><|assistant|>").ids])
    with torch.inference_mode():
        torch.testing.assert_close(network(tokens), reference(tokens).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_transformers_reads_the_tokenizer_and_its_chat_template(size: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINTS / size)
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is 1 + 1?"}]},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Hello"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>Be brief.<|end|><|user|>What is 1 + 1?<|end|><|assistant|>2<|end|>"
        "<|user|>Hello<|end|><|assistant|>"
    )
    _, trained = load_checkpoint(CHECKPOINTS / size)
    assert tokenizer(text, add_special_tokens=True)["input_ids"] == trained.encode(text).ids
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token == "<|pad|>"


def test_the_larger_is_well_ahead_of_the_smaller_on_held_out_questions() -> None:
    questions = held_out(400, seed=5)
    tiny, small = (
        accuracy(replies(*load_checkpoint(CHECKPOINTS / size), questions)) for size in SIZES
    )
    assert tiny >= 0.25
    assert small >= tiny + 0.15


def test_a_card_states_what_was_measured() -> None:
    text = card(CHECKPOINTS / "tiny", questions=20)
    assert "| all | 20 |" in text
    assert "license: apache-2.0" in text
    assert "$" not in text
