"""Write a demo checkpoint's model card from its training record and a fresh measurement.

python -m local_engine.demo.card local_engine/demo/checkpoints/tiny --questions 1000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template

from local_engine.demo.evaluate import replies, report
from local_engine.demo.export import load_checkpoint
from local_engine.demo.tasks import held_out

_CARD = Template("""---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# frugal-gateway demo model: $size

A demonstration model of $parameters parameters. It lets the gateway's cascade be tried with no
key, no network and no GPU, and it shows a small model that tells when it is right. It can do the
few kinds of exercise below and nothing else; for real work put a real checkpoint or a provider
in its place.

- **Architecture**: Llama, $layers layers of width $width, $heads heads over $kv_heads key-value
  heads, tied head, vocabulary $vocabulary, $positions positions, bfloat16.
- **Data**: questions with checkable answers, drawn by `local_engine/demo/tasks.py`; no outside
  text. $style
- **Split**: a question is held out when the CRC-32 of its canonical key, the same for all
  wordings and operand orders, divides by ten; it is never trained on in any wording. Capitals,
  months and courtesies are short lists of facts, trained whole and not part of the figures.
  Working shown in one family may contain a sum that is held out as a question of another.
- **Recipe**: Muon on the layers' matrices, AdamW on the rest, peak rate $peak_rate,
  $tokens_per_batch tokens a batch, loss on replies only, easy levels first (`recipes.py`); the
  schedules follow the share of the time that has passed, so a run repeats in kind, not bit by
  bit. Seed $seed, one thread of a shared CPU, $minutes minutes, $steps steps, $tokens tokens,
  torch $torch.$note
- **Command**: `python -m local_engine.demo.train --size $size --minutes $minutes_asked --out DIR`

## Measured

`python -m local_engine.demo.evaluate DIR --questions $questions --seed 0`: distinct held-out
questions of the demo's mix (45 % first level, 10 % last), greedy, the
weights as stored, computed in float32.

$report

## Licence

Apache-2.0, weights and recipe alike.
""")

_STYLES = {
    True: "Replies show brief working, then `answer:` and the answer.",
    False: "Replies are the bare answer.",
}


def card(directory: Path, questions: int) -> str:
    """Return the model card of a checkpoint, measured on `questions` held-out questions."""
    network, tokenizer = load_checkpoint(directory)
    record = json.loads((directory / "training.json").read_text())
    shape = network.shape
    return _CARD.substitute(
        record,
        tokens=f"{record['tokens']:,}",
        steps=f"{record['steps']:,}",
        minutes_asked=round(record["minutes"]),
        note=record.get("note", ""),
        style=_STYLES[record["shows_working"]],
        parameters=f"{sum(parameter.numel() for parameter in network.parameters()):,}",
        layers=shape.layers,
        width=shape.width,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        vocabulary=shape.vocabulary,
        positions=shape.positions,
        questions=questions,
        report=report(replies(network, tokenizer, held_out(questions))),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write `README.md` into the checkpoint."""
    parser = argparse.ArgumentParser(description="Write a demo checkpoint's model card.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--questions", type=int, default=1000)
    options = parser.parse_args(arguments)
    (options.directory / "README.md").write_text(card(options.directory, options.questions))


if __name__ == "__main__":
    main()
