"""Endless training batches: questions as chats, packed by length, the loss on replies only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from local_engine.demo.tasks import DEMO_LEVELS, training_question
from local_engine.demo.tokenizer_training import END, PAD, ROLES, token_id

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "Answer the question.",
    "Be brief.",
)
_SYSTEM_SHARE = 0.15
_SECOND_TURN_SHARE = 0.15
_POOL = 4096
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and the targets they should predict, both (rows, time); -100 carries no loss."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Style:
    """What a model is taught: whether replies show working, and the levels of the later half."""

    is_worked: bool
    last_levels: tuple[float, float, float, float] = DEMO_LEVELS


def chat_text(rng: Random, progress: float, style: Style) -> str:
    """Return one training chat: perhaps a system prompt, then one question or two."""
    text = ""
    if rng.random() < _SYSTEM_SHARE:
        text += f"<|system|>{rng.choice(_SYSTEM_PROMPTS)}{END}"
    for _ in range(1 + (rng.random() < _SECOND_TURN_SHARE)):
        question = training_question(rng, progress, style.last_levels)
        reply = question.worked_reply if style.is_worked else question.answer
        text += f"<|user|>{question.prompt}{END}<|assistant|>{reply}{END}"
    return text


def batches(
    tokenizer: Tokenizer,
    *,
    seed: str,
    style: Style,
    tokens: int,
    progress: Callable[[], float],
) -> Iterator[Batch]:
    """Yield batches of about `tokens` tokens for ever; rows of a batch are of similar length."""
    rng = Random(f"training:{seed}")
    while True:
        passed = progress()
        texts = [chat_text(rng, passed, style) for _ in range(_POOL)]
        rows = sorted((each.ids for each in tokenizer.encode_batch_fast(texts)), key=len)
        groups = list(_grouped(rows, tokens))
        rng.shuffle(groups)
        for group in groups:
            yield _batch(group, tokenizer)


def _grouped(rows: list[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    group: list[list[int]] = []
    for row in rows:
        if group and (len(group) + 1) * len(row) > tokens:
            yield group
            group = []
        group.append(row)
    yield group


def _batch(rows: list[list[int]], tokenizer: Tokenizer) -> Batch:
    pad = token_id(tokenizer, PAD)
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    targets = ids.masked_fill(~_in_reply(ids, tokenizer), _IGNORED)
    return Batch(ids[:, :-1], targets[:, 1:])


def _in_reply(ids: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Mark the tokens of replies: their ends included, the role tokens that open them not."""
    roles = torch.tensor([token_id(tokenizer, f"<|{role}|>") for role in ROLES])
    is_role = torch.isin(ids, roles)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    speaker = ids.gather(1, torch.where(is_role, places, 0).cummax(1).values)
    is_reply = speaker == token_id(tokenizer, "<|assistant|>")
    return is_reply & ~is_role & (ids != token_id(tokenizer, PAD))
