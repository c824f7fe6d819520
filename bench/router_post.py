"""How well drafts are judged after they were written: the figures of the answer scorer.

    python -m bench.router_post zeroeval          # Llama-8B beside Qwen2-7B, against Sonnet
    python -m bench.router_post gsm8k             # RouteLLM's pair
    python -m bench.router_post mmlu_pro          # Llama-8B against Gemini-1.5-pro
    python -m bench.router_post within zeroeval   # AUROC within one model and set, averaged
    python -m bench.router_post prefix            # the same on drafts cut off early
    python -m bench.router_post speed             # CPU time of one judgement
    python -m bench.router_post zeroeval --without examples   # an ablation
    python -m bench.router_post zeroeval --labels 0,50,200,1500,all --json
    python -m bench.router_post zeroeval --leave              # each set held out as a whole

Pair rows come from five-fold cross-fitting over train and dev, near-duplicates kept together;
intervals are paired bootstraps over questions. Every part is the router's own, fitted as
`frugal train` does: the estimates from the prompt and its vector, which are told no category
of what they are asked, the judge of drafts, and what a draft says of the model above. With few
labels only so many questions of a training fold are scored; with none, drafts are told apart by
their own signs, as a cold start does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bench.router.after import PAIRS, Row, judged_pair
from bench.router.within import speed, within
from router.correctness import FAMILIES
from router.drafts import cut_at

DATA = Path(__file__).parents[2] / "shared" / "data"
PREFIXES = (200, 400, 800)


def main() -> None:
    """Run one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", choices=[*PAIRS, "within", "prefix", "speed"])
    parser.add_argument("which", nargs="?", default="zeroeval", choices=["zeroeval", "mmlu_pro"])
    parser.add_argument("--without", nargs="*", default=[], choices=list(FAMILIES))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the outcomes tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", default="all", help="such as 0,50,200,1500,all")
    parser.add_argument("--leave", action="store_const", const="dataset", default="fold")
    parser.add_argument("--beside", help="within: whose draft is there, too")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.table in PAIRS:
        _pair_rows(asked)
    elif asked.table == "speed":
        speed(asked.data)
    else:
        cut = cut_at(PREFIXES) if asked.table == "prefix" else None
        beside = asked.beside or PAIRS[asked.which].beside
        within(asked.which, asked.data, asked.without, beside or "", cut)


def _pair_rows(asked: argparse.Namespace) -> None:
    budgets = [None if each == "all" else int(each) for each in asked.labels.split(",")]
    rows = judged_pair(
        asked.table, asked.data, budgets, asked.leave, asked.without, asked.seed
    )  # fmt: skip
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    for row in rows:
        told(row)


def told(row: Row) -> None:
    """Print one row of figures with intervals."""
    labels = "all" if row.labels is None else row.labels
    print(f"{row.pair}, {row.judged}, {labels} labels, held out by {row.leave}")
    for name, found in (
        ("AUROC", row.auroc), ("Brier", row.brier), ("APGR by confidence", row.by_confidence),
        ("APGR by gain", row.by_gain), ("APGR by gain, J=50", row.by_gain_of_50),
    ):  # fmt: skip
        print(f"  {name:<22}{found:.3f}")
    print(f"  {'ECE':<22}{row.ece:.4f} (95 % of perfectly calibrated ones stay below "
          f"{row.chance:.4f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
