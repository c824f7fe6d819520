"""Benchmarks of the learned router: `python -m bench.router TABLE --data ../shared/data`.

Each table explains its own options: `python -m bench.router pairs --help`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

TABLES = {
    "pairs": "before generating: APGR of pairs of models, label budgets, ablations, baselines",
    "models": "before generating: AUROC and Brier of each model's estimated quality",
    "pool": "the whole cascade over a pool of models: cost at a share of the best one's quality",
    "guarantee": "how often a certified floor is broken, and how many reference calls it takes",
    "online": "a route that learns by itself: audits to a certificate, and whether it holds",
    "reliability": "whether what a bundle foretells of replies comes true: a diagram a model",
    "joins": "a model that joins by few probes, against a cascade without it and one with it",
    "everything": "all of these into docs/router-tables.md: resumable, one to two hours of CPU",
    "speed": "before generating: CPU to fit 50,000 outcomes, and to estimate one query",
}
"""What there is, by the name of its module in this package."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one table. Returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] not in TABLES:
        print(__doc__)
        for name, what in TABLES.items():
            print(f"  {name:11} {what}")
        return 0 if given in ([], ["--help"]) else 2
    status: int = import_module(f"bench.router.{given[0]}").main(given[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
