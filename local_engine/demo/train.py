"""Train a demo model.

    python -m local_engine.demo.train --size tiny --minutes 70 --out checkpoints/tiny

The learning rate and the difficulty of the questions follow the share of the time that has
passed, so the run ends when it was told to on any machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from local_engine.demo.batches import Batch, batches
from local_engine.demo.evaluate import accuracy, by_family, replies
from local_engine.demo.export import load_checkpoint, save_checkpoint, write_json
from local_engine.demo.network import Llama, Shape, initialise
from local_engine.demo.tasks import held_out
from local_engine.demo.tokenizer_training import train_tokenizer

_LOG_EVERY_S = 20.0
_PROBE_SEED = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one size is built and trained; times are shares of the run."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    is_worked: bool
    peak_rate: float = 4e-3
    warm_up: float = 0.02
    last_rate: float = 0.02
    tokens: int = 2048

    def shape(self, vocabulary: int) -> Shape:
        """Return the network's sizes for a vocabulary."""
        return Shape(
            vocabulary=vocabulary,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            feed_forward=self.feed_forward,
        )

    def rate_factor(self, progress: float) -> float:
        """Return the learning rate as a share of its peak: a ramp up, level, a ramp down."""
        if progress < self.warm_up:
            return max(progress / self.warm_up, 0.01)
        return max(self.last_rate, min(1.0, (1.0 - progress) / 0.5))


RECIPES = {
    "tiny": Recipe(
        name="tiny",
        width=128,
        layers=6,
        heads=4,
        kv_heads=2,
        head_width=32,
        feed_forward=352,
        is_worked=False,
    ),
    "small": Recipe(
        name="small",
        width=192,
        layers=6,
        heads=6,
        kv_heads=3,
        head_width=32,
        feed_forward=512,
        is_worked=True,
        peak_rate=3e-3,
        tokens=3072,
    ),
}


class Clock:
    """The share of a run's time that has passed."""

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._start = now()
        self._seconds = 60 * minutes

    def minutes_passed(self) -> float:
        return (self._now() - self._start) / 60

    def progress(self) -> float:
        return min(1.0, (self._now() - self._start) / self._seconds)


class Trainer:
    """One network under training: Muon for the matrices of the layers, AdamW for the rest."""

    def __init__(self, network: Llama, recipe: Recipe) -> None:
        self.network = network
        self.recipe = recipe
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            is_matrix = parameter.dim() == 2 and "layers" in name
            (matrices if is_matrix else others).append(parameter)
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices,
                lr=recipe.peak_rate,
                weight_decay=0.05,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=recipe.peak_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, batch: Batch, progress: float) -> float:
        """Learn from one batch and return its loss, the mean over reply tokens in nats."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = reply_loss(self.network, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = self.recipe.peak_rate * self.recipe.rate_factor(progress)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()


def reply_loss(network: Llama, batch: Batch) -> Tensor:
    """Return the cross-entropy of reply tokens; scores are computed for those alone."""
    is_target = batch.targets >= 0
    hidden, _ = network.hidden(batch.inputs)
    logits = network.logits(hidden[is_target])
    return functional.cross_entropy(logits.float(), batch.targets[is_target])


@dataclass(slots=True)
class Progress:
    """What a run has done so far."""

    steps: int = 0
    tokens: int = 0
    loss: float = 0.0

    def add(self, batch: Batch, loss: float) -> None:
        self.steps += 1
        self.tokens += batch.inputs.numel()
        self.loss = loss if self.steps == 1 else 0.98 * self.loss + 0.02 * loss

    def record(self, recipe: Recipe, seed: int, clock: Clock) -> dict[str, Any]:
        """Return what a reader of the checkpoint should know of its training."""
        return {
            "size": recipe.name,
            "seed": seed,
            "minutes": round(clock.minutes_passed(), 1),
            "steps": self.steps,
            "tokens": self.tokens,
            "last_loss": round(self.loss, 4),
            "shows_working": recipe.is_worked,
            "peak_rate": recipe.peak_rate,
            "tokens_per_batch": recipe.tokens,
            "torch": torch.__version__,
        }


def train(
    recipe: Recipe, clock: Clock, *, out: Path, seed: int, start: Path | None, export_s: float
) -> Progress:
    """Train until the clock has run out, with a usable checkpoint in `out` every `export_s`.

    `start` is a checkpoint to go on from. Beside the weights lies `training.json`, what was done.
    """
    torch.manual_seed(seed)
    if start is not None:
        network, tokenizer = load_checkpoint(start)
    else:
        tokenizer = train_tokenizer()
        network = Llama(recipe.shape(tokenizer.get_vocab_size()))
        initialise(network, seed)
    trainer = Trainer(network, recipe)
    source = batches(
        tokenizer,
        seed=seed,
        is_worked=recipe.is_worked,
        tokens=recipe.tokens,
        progress=clock.progress,
    )
    done = Progress()
    logs, exports = _Every(_LOG_EVERY_S), _Every(export_s)
    for progress, batch in _until_done(clock, source):
        done.add(batch, trainer.step(batch, progress))
        if logs.is_due():
            _log(done, progress)
        if exports.is_due():
            _export(network, tokenizer, out, done.record(recipe, seed, clock))
    _log(done, 1.0)
    _export(network, tokenizer, out, done.record(recipe, seed, clock))
    return done


class _Every:
    """Says when the next of a row of evenly spaced moments has come."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def _until_done(clock: Clock, source: Iterator[Batch]) -> Iterator[tuple[float, Batch]]:
    while (progress := clock.progress()) < 1.0:
        yield progress, next(source)


def _log(done: Progress, progress: float) -> None:
    filled = round(20 * progress)
    print(
        f"[{'#' * filled}{'.' * (20 - filled)}] {progress:6.1%}  step {done.steps}"
        f"  tokens {done.tokens:,}  loss {done.loss:.4f}",
        flush=True,
    )


def _export(network: Llama, tokenizer: Tokenizer, out: Path, record: dict[str, Any]) -> None:
    save_checkpoint(network, tokenizer, out)
    write_json(out / "training.json", record)
    _probe(out)


def _probe(directory: Path) -> None:
    """Print the accuracy, as stored, on held-out questions that the final report does not use."""
    answered = replies(*load_checkpoint(directory), held_out(200, _PROBE_SEED))
    families = "  ".join(
        f"{name} {accuracy(group):.2f}" for name, group in by_family(answered).items()
    )
    print(f"held out: {accuracy(answered):.3f}  {families}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train a demo model.")
    parser.add_argument("--size", choices=sorted(RECIPES), required=True)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", dest="start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--export-minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    train(
        RECIPES[options.size],
        Clock(options.minutes),
        out=options.out,
        seed=options.seed,
        start=options.start,
        export_s=60 * options.export_minutes,
    )


if __name__ == "__main__":
    main()
