"""Train a demo model.

    python -m local_engine.demo.train --size tiny --minutes 70 --out checkpoints/tiny

The learning rate and the difficulty of the questions follow the share of the time that has
passed, so the run ends when it was told to on any machine. `--from` goes on where a checkpoint
left its schedules and spends `--minutes` on the rest of them.
"""

from __future__ import annotations

import argparse
import json
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
from local_engine.demo.network import Llama, initialise
from local_engine.demo.recipes import RECIPES, Recipe
from local_engine.demo.tasks import held_out
from local_engine.demo.tokenizer_training import train_tokenizer

_LOG_EVERY_S = 20.0
_PROBE_SEED = 1


class Clock:
    """The share of a run that has passed; `start` was passed before the clock was set."""

    def __init__(
        self, minutes: float, start: float = 0.0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.start = start
        self._now = now
        self._begun = now()
        self._seconds = 60 * minutes

    def minutes_passed(self) -> float:
        """Return the minutes since the beginning."""
        return (self._now() - self._begun) / 60

    def progress(self) -> float:
        """Return how much of the schedule lies behind, from 0 to 1."""
        passed = min(1.0, (self._now() - self._begun) / self._seconds)
        return self.start + (1.0 - self.start) * passed


class Trainer:
    """One network under training: Muon for the matrices of the layers, AdamW for the rest."""

    def __init__(self, network: Llama, recipe: Recipe, start: float = 0.0) -> None:
        self.network = network
        self.recipe = recipe
        self.start = start
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
            loss = reply_loss(self.network, batch, self.recipe.length_power)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = self.recipe.peak_rate * self.recipe.rate_factor(progress, self.start)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()


def reply_loss(network: Llama, batch: Batch, length_power: float = 0.0) -> Tensor:
    """Return the cross-entropy of reply tokens, in nats; scores are computed for those alone.

    A token weighs the row's number of reply tokens to the power of minus `length_power`, so that
    short answers are not drowned by long working.
    """
    is_target = batch.targets >= 0
    hidden, _ = network.hidden(batch.inputs)
    logits = network.logits(hidden[is_target])
    losses = functional.cross_entropy(logits.float(), batch.targets[is_target], reduction="none")
    lengths = is_target.sum(1, keepdim=True).expand_as(is_target)[is_target]
    weights = lengths.float() ** -length_power
    return (losses * weights).sum() / weights.sum()


@dataclass(slots=True)
class Done:
    """What has been done to a network so far, over all its runs."""

    steps: int = 0
    tokens: int = 0
    minutes_before: float = 0.0
    loss: float | None = None

    def add(self, batch: Batch, loss: float) -> None:
        """Count one step; the loss kept is a moving average."""
        self.steps += 1
        self.tokens += batch.inputs.numel()
        self.loss = loss if self.loss is None else 0.98 * self.loss + 0.02 * loss

    def record(self, recipe: Recipe, seed: int, clock: Clock) -> dict[str, Any]:
        """Return what a reader of the checkpoint should know of its training."""
        return {
            "size": recipe.name,
            "seed": seed,
            "minutes": round(self.minutes_before + clock.minutes_passed(), 1),
            "progress": round(clock.progress(), 4),
            "steps": self.steps,
            "tokens": self.tokens,
            "last_loss": self.loss and round(self.loss, 4),
            "shows_working": recipe.style.is_worked,
            "peak_rate": recipe.peak_rate,
            "tokens_per_batch": recipe.tokens,
            "torch": torch.__version__,
        }


def train(
    recipe: Recipe, clock: Clock, *, out: Path, start: Start, export_s: float, probe: int = 200
) -> Done:
    """Train until the clock has run out, with a usable checkpoint in `out` every `export_s`.

    Each is tried on `probe` held-out questions. Beside the weights lies `training.json`, which
    says what was done.
    """
    torch.manual_seed(start.seed)
    network, tokenizer, done = start.prepare(recipe)
    trainer = Trainer(network, recipe, clock.start)
    source = batches(
        tokenizer,
        seed=f"{start.seed}:{done.steps}",
        style=recipe.style,
        tokens=recipe.tokens,
        progress=clock.progress,
    )
    logs, exports = _Every(_LOG_EVERY_S), _Every(export_s)
    for progress, batch in _until_done(clock, source):
        done.add(batch, trainer.step(batch, progress))
        if logs.is_due():
            _log(done, progress)
        if exports.is_due():
            _export(network, tokenizer, out, done.record(recipe, start.seed, clock))
            _probe(out, probe)
    _log(done, 1.0)
    _export(network, tokenizer, out, done.record(recipe, start.seed, clock))
    _probe(out, probe)
    return done


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins: from a seed, or from a checkpoint that an earlier run left."""

    seed: int = 0
    directory: Path | None = None

    def record(self) -> dict[str, Any]:
        """Return the training record of the checkpoint, empty without one."""
        if self.directory is None:
            return {}
        return dict(json.loads((self.directory / "training.json").read_text()))

    def prepare(self, recipe: Recipe) -> tuple[Llama, Tokenizer, Done]:
        """Return the network, its tokenizer and what has been done to it so far."""
        if self.directory is None:
            tokenizer = train_tokenizer()
            network = Llama(recipe.shape(tokenizer.get_vocab_size()))
            initialise(network, self.seed)
        else:
            network, tokenizer = load_checkpoint(self.directory)
        record = self.record()
        done = Done(record.get("steps", 0), record.get("tokens", 0), record.get("minutes", 0.0))
        return network, tokenizer, done


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


def _log(done: Done, progress: float) -> None:
    filled = round(20 * progress)
    print(
        f"[{'#' * filled}{'.' * (20 - filled)}] {progress:6.1%}  step {done.steps}"
        f"  tokens {done.tokens:,}  loss {done.loss or 0.0:.4f}",
        flush=True,
    )


def _export(network: Llama, tokenizer: Tokenizer, out: Path, record: dict[str, Any]) -> None:
    save_checkpoint(network, tokenizer, out)
    write_json(out / "training.json", record)


def _probe(directory: Path, questions: int) -> None:
    """Print the accuracy, as stored, on held-out questions that the final report does not use."""
    answered = replies(*load_checkpoint(directory), held_out(questions, _PROBE_SEED))
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
    start = Start(options.seed, options.start)
    train(
        RECIPES[options.size],
        Clock(options.minutes, start.record().get("progress", 0.0)),
        out=options.out,
        start=start,
        export_s=60 * options.export_minutes,
    )


if __name__ == "__main__":
    main()
