"""What each quantization costs in quality, against the same checkpoint in fp32.

python -m local_engine.quality demo/small --questions 200
python -m local_engine.quality /models/Qwen2.5-0.5B --text book.txt

Demo checkpoints reply to held-out questions of their own kind; others need a text.
Perplexity is that of the replies in fp32 (or of the text), the divergence that of the
distribution of the first token of each, in nats.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.batch import Batch, Segment
from local_engine.checkpoint import find_checkpoint
from local_engine.kv import PAGE_SIZE, KvShape, PagedKv
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import Quantization
from local_engine.tokenizer import Tokenizer

SCHEMES: tuple[Quantization, ...] = (
    "none",
    "int8",
    "int4-g32",
    "int4",
    "int4-g128",
    "nf4",
    "fp8",
)
_WINDOW, _LEAD = 256, 32
_LONGEST_REPLY = 48


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens to begin with, and those whose likelihood is measured."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """One scheme: size, perplexity, and how far the first tokens are from fp32's.

    `first_token_kl` is the mean of KL(fp32 || scheme) in nats, `worst_kl` the largest;
    `agreement` is the share of examples whose likeliest first token is fp32's.
    """

    scheme: str
    mib: float
    perplexity: float
    first_token_kl: float
    worst_kl: float
    agreement: float


def demo_examples(model: LoadedModel, count: int, seed: int = 0) -> list[Example]:
    """Return held-out questions of the demo with what the model itself replies.

    Its own replies, as in fp32: of a right answer that a small model would never give,
    one token of probability zero would drown all the others.
    """
    from local_engine.demo.tasks import held_out

    prompts = [
        model.tokenizer.encode(f"<|user|>{q.prompt}<|end|><|assistant|>", add_special=False)
        for q in held_out(count, seed)
    ]
    return [Example(prompt, _reply(model, prompt)) for prompt in prompts]


def _reply(model: LoadedModel, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Answer greedily, the end token included."""
    decoder = model.decoder
    pages = range(1, 2 + (len(prompt) + _LONGEST_REPLY) // PAGE_SIZE)
    cache = PagedKv(KvShape.of(model.config), 1 + len(pages), decoder.dtype, decoder.device)
    tokens, computed = list(prompt), 0
    while len(tokens) - len(prompt) < _LONGEST_REPLY:
        batch = Batch([Segment(pages, computed, tuple(tokens[computed:]))], cache)
        computed = len(tokens)
        tokens.append(int(decoder.forward(batch, cache, batch.last)[0].argmax()))
        if tokens[-1] in model.end_ids:
            break
    return tuple(tokens[len(prompt) :])


def text_examples(tokenizer: Tokenizer, text: str, count: int) -> list[Example]:
    """Cut a text into windows, each measured after its first tokens."""
    tokens = tokenizer.encode(text, add_special=False)
    windows = [tokens[i : i + _WINDOW] for i in range(0, len(tokens) - _LEAD, _WINDOW)]
    return [Example(w[:_LEAD], w[_LEAD:]) for w in windows[:count] if len(w) > _LEAD]


def compare(
    path: Path, examples: Sequence[Example], schemes: Iterable[Quantization] = SCHEMES
) -> Iterator[Quality]:
    """Measure schemes on the CPU, one after another; the first row is fp32 itself."""
    device = torch.device("cpu")
    exact = _measured(load_model(path, LoadOptions(dtype=torch.float32, device=device)), examples)
    for scheme in schemes:
        model = load_model(path, LoadOptions(scheme, torch.float32, device))
        yield _quality(scheme, model, _measured(model, examples), exact)


@dataclass(frozen=True, slots=True)
class _Measured:
    """Log-probabilities: of every answer's tokens, and of all first tokens `[examples, V]`."""

    tokens: Tensor
    first: Tensor


def _measured(model: LoadedModel, examples: Sequence[Example]) -> _Measured:
    longest = max(len(e.prompt) + len(e.answer) for e in examples)
    pages = range(1, 2 + longest // PAGE_SIZE)
    decoder = model.decoder
    shape = KvShape.of(model.config)
    cache = PagedKv(shape, 1 + len(pages), decoder.dtype, decoder.device)
    tokens, first = [], []
    for example in examples:
        # The last token of the answer predicts nothing that is measured.
        sequence = (*example.prompt, *example.answer[:-1])
        batch = Batch([Segment(pages, 0, sequence)], cache)
        wanted = torch.arange(len(example.prompt) - 1, len(sequence))
        rows = decoder.forward(batch, cache, wanted).log_softmax(-1)
        tokens.append(rows.gather(1, torch.tensor(example.answer)[:, None])[:, 0])
        first.append(rows[0])
    return _Measured(torch.cat(tokens), torch.stack(first))


def _quality(scheme: str, model: LoadedModel, found: _Measured, exact: _Measured) -> Quality:
    divergence = (exact.first.exp() * (exact.first - found.first)).sum(-1)
    agreeing = exact.first.argmax(-1) == found.first.argmax(-1)
    return Quality(
        "fp32" if scheme == "none" else scheme,
        model.decoder.nbytes / 2**20,
        math.exp(-found.tokens.mean().item()),
        max(0.0, divergence.mean().item()),
        max(0.0, divergence.max().item()),
        agreeing.float().mean().item(),
    )


def table(rows: Iterable[Quality]) -> Iterator[str]:
    """Lay the rows out, one line at a time."""
    yield f"{'scheme':10} {'MiB':>8} {'perplexity':>11} {'KL':>10} {'worst KL':>10} {'agree':>7}"
    for row in rows:
        yield (
            f"{row.scheme:10} {row.mib:8.1f} {row.perplexity:11.4f} {row.first_token_kl:10.2e} "
            f"{row.worst_kl:10.2e} {row.agreement:7.1%}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local_engine.quality", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="demo/small")
    parser.add_argument("--text", type=Path, help="measure on this text instead")
    parser.add_argument("--questions", type=int, default=200, help="examples at most")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = find_checkpoint(options.checkpoint)
    if options.text is None and not options.checkpoint.startswith("demo/"):
        parser.error("a checkpoint that is not shipped needs --text FILE")
    model = load_model(path, LoadOptions(dtype=torch.float32, device=torch.device("cpu")))
    if options.text is None:
        examples = demo_examples(model, options.questions)
    else:
        text = options.text.read_text(encoding="utf-8")
        examples = text_examples(model.tokenizer, text, options.questions)
    if not examples:
        parser.error(f"--text: expected more than {_LEAD} tokens, found fewer")
    rows = compare(path, examples, options.schemes)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    for line in table(rows):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
