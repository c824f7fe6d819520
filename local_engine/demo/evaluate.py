"""Measure a checkpoint on held-out questions: accuracy, reply length, and how well it knows.

python -m local_engine.demo.evaluate local_engine/demo/checkpoints/tiny --questions 500
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from tokenizers import Tokenizer

from local_engine.demo.export import MAX_NEW_TOKENS, load_checkpoint
from local_engine.demo.network import KeysAndValues, Llama
from local_engine.demo.tasks import Question, held_out, is_right
from local_engine.demo.tokenizer_training import END, token_id

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Reply:
    """A greedy reply; `logprobs` are of its tokens, the end token included."""

    question: Question
    text: str
    logprobs: tuple[float, ...]

    @property
    def is_right(self) -> bool:
        """Return whether the text answers the question."""
        return is_right(self.question, self.text)

    @property
    def min_logprob(self) -> float:
        """Return the log-probability of the least likely token."""
        return min(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """Return the mean log-probability of the tokens."""
        return sum(self.logprobs) / len(self.logprobs)


def replies(
    network: Llama,
    tokenizer: Tokenizer,
    questions: Iterable[Question],
    on_answered: Callable[[int], None] = lambda count: None,
) -> list[Reply]:
    """Answer questions greedily, in batches of prompts of one length, telling each batch's size."""
    by_length: dict[int, list[tuple[Question, list[int]]]] = defaultdict(list)
    for question in questions:
        ids = tokenizer.encode(f"<|user|>{question.prompt}{END}<|assistant|>").ids
        by_length[len(ids)].append((question, ids))
    found: list[Reply] = []
    for group in by_length.values():
        for start in range(0, len(group), _BATCH):
            found += _answer(network, tokenizer, group[start : start + _BATCH])
            on_answered(len(group[start : start + _BATCH]))
    return found


@torch.inference_mode()
def _answer(
    network: Llama, tokenizer: Tokenizer, group: Sequence[tuple[Question, list[int]]]
) -> list[Reply]:
    end = token_id(tokenizer, END)
    tokens = torch.tensor([ids for _, ids in group])
    past: list[KeysAndValues] | None = None
    chosen: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []
    is_done = torch.zeros(len(group), dtype=torch.bool)
    while len(chosen) < MAX_NEW_TOKENS and not is_done.all():
        hidden, past = network.hidden(tokens, past)
        best = network.logits(hidden[:, -1]).log_softmax(-1).max(-1)
        chosen.append(best.indices)
        scores.append(best.values)
        is_done |= best.indices == end
        tokens = best.indices[:, None]
    rows = zip(group, torch.stack(chosen, 1).tolist(), torch.stack(scores, 1).tolist(), strict=True)
    return [_reply(tokenizer, end, question, *row) for (question, _), *row in rows]


def _reply(
    tokenizer: Tokenizer, end: int, question: Question, ids: list[int], scores: list[float]
) -> Reply:
    length = ids.index(end) if end in ids else len(ids)
    return Reply(question, tokenizer.decode(ids[:length]), tuple(scores[: length + 1]))


def accuracy(answered: Sequence[Reply]) -> float:
    """Return the share of right replies."""
    return sum(reply.is_right for reply in answered) / len(answered)


def interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    z, share = 1.96, right / count
    centre = share + z * z / (2 * count)
    spread = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)


def auroc(answered: Iterable[Reply], score: Callable[[Reply], float]) -> float | None:
    """Return how often a right reply scores above a wrong one; None when either is missing."""
    return _concordance([answered], score)


def auroc_within(answered: Iterable[Reply], score: Callable[[Reply], float]) -> float | None:
    """Return the same over pairs of one family, so that telling families apart earns nothing."""
    return _concordance(by_family(answered).values(), score)


def by_family(answered: Iterable[Reply]) -> dict[str, list[Reply]]:
    """Group replies by their question's family, families in alphabetical order."""
    families: dict[str, list[Reply]] = defaultdict(list)
    for reply in sorted(answered, key=lambda each: each.question.family):
        families[reply.question.family].append(reply)
    return dict(families)


def _concordance(
    groups: Iterable[Iterable[Reply]], score: Callable[[Reply], float]
) -> float | None:
    won, pairs = 0.0, 0
    for group in groups:
        scored = [(score(reply), reply.is_right) for reply in group]
        right = [value for value, is_good in scored if is_good]
        wrong = [value for value, is_good in scored if not is_good]
        won += sum((good > bad) + 0.5 * (good == bad) for good in right for bad in wrong)
        pairs += len(right) * len(wrong)
    return won / pairs if pairs else None


def report(answered: Sequence[Reply]) -> str:
    """Return the figures as a Markdown table with a summary below."""
    lines = ["| family | questions | right | tokens per reply |", "|---|---|---|---|"]
    lines += [_row(name, group) for name, group in by_family(answered).items()]
    lines += [_row("all", answered)]
    low, high = interval(sum(reply.is_right for reply in answered), len(answered))
    lines += ["", f"Right: {accuracy(answered):.1%} (95 % interval {low:.1%} to {high:.1%})."]
    for name, score in (
        ("least token log-probability", lambda reply: reply.min_logprob),
        ("mean token log-probability", lambda reply: reply.mean_logprob),
    ):
        pooled, within = auroc(answered, score), auroc_within(answered, score)
        lines.append(f"AUROC of the {name}: {_shown(pooled)} pooled, {_shown(within)} in families.")
    return "\n".join([*lines, "", *_accepted(answered)])


def _row(name: str, group: Sequence[Reply]) -> str:
    tokens = sum(len(reply.logprobs) for reply in group) / len(group)
    return f"| {name} | {len(group)} | {accuracy(group):.1%} | {tokens:.1f} |"


def _accepted(answered: Sequence[Reply]) -> list[str]:
    """Return how right the most confident shares are, and the threshold that keeps each."""
    ranked = sorted(answered, key=lambda reply: -reply.min_logprob)
    lines = ["| most confident | least log-probability | right |", "|---|---|---|"]
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        kept = ranked[: max(1, round(share * len(ranked)))]
        lines.append(f"| {share:.0%} | {kept[-1].min_logprob:.5f} | {accuracy(kept):.1%} |")
    return lines


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description="Measure a demo checkpoint on held-out questions.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    network, tokenizer = load_checkpoint(options.directory)
    questions = held_out(options.questions, options.seed)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("answering", total=len(questions))
        answered = replies(network, tokenizer, questions, lambda count: bar.advance(task, count))
    print(report(answered))


if __name__ == "__main__":
    main()
