"""Compile a form where it can do no harm: in a process of little memory and time.

llguidance bounds its lexer and its parser, but writes some forms out as a whole before
either begins: a million times one letter, a multiple of a large prime, a terminal that is
twice another that is twice another. A gigabyte more, and the system ends the engine or, worse,
its neighbours. `needs_trial` tells the forms that cannot grow from those that might, and
`survives` compiles such a one in a process of its own first.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_items_in_row": 1_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
    "precompute_large_lexemes": False,
}
"""About 20 ms to read a lexer and as much for a mask at llguidance's stated speeds."""

_MEMORY_BYTES = 1 << 30
_CPU_S = 1
_WALL_S = 30.0
_WRITTEN_OUT = 10_000
_COUNTS = re.compile(r'\{\s*(\d+)|"(?:min|max)\w+": *(\d+)')
_GROWING = re.compile(r"multipleOf|\(\?[a-zA-Z-]*x")


def needs_trial(grammar: str) -> bool:
    """Tell whether a schema or expression could grow beyond what it says when compiled."""
    counts = (int((a or b)[:9]) for a, b in _COUNTS.findall(grammar))
    return bool(_GROWING.search(grammar)) or math.prod(n or 1 for n in counts) > _WRITTEN_OUT


def survives(grammar: str) -> bool:
    """Compile a form, given as llguidance's own text, elsewhere; tell whether that went well.

    One that is merely wrong survives: whoever compiles it then is told why.
    """
    paths = (str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "local_engine.form_trial"],
            input=grammar.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=_WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Compile what standard input holds; dies where that takes too much."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    import llguidance

    # What grows does so before the first token, so bytes will do for a vocabulary.
    tokenizer = llguidance.LLTokenizer("byte")
    limits = llguidance.LLParserLimits(**LIMITS)
    matcher = llguidance.LLMatcher(tokenizer, sys.stdin.read(), log_level=0, limits=limits)
    if not matcher.is_error():
        matcher.compute_bitmask()


if __name__ == "__main__":
    main()
