"""What runs below a process."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the processes that `pid` has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def below(pid: int, word: str) -> list[int]:
    """Return the processes below `pid`, at any depth, whose command line holds a word."""
    found = []
    for child in children(pid):
        command = Path(f"/proc/{child}/cmdline").read_bytes().decode("utf-8", "replace")
        found += [child] if word in command else []
        found += below(child, word)
    return found
