"""Small parts of a semantic cache whose every answer can be worked out by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import count

import numpy as np

from cache.semantic.embedder import Vector
from cache.semantic.types import Candidate, Decision
from tests.support.replies import Says
from tests.support.scripted_upstream import Received, Script


class Lettered:
    """An embedder of letters: how often each of 32 occurs. Waits for leave where told to."""

    width = 32
    max_tokens = 100

    def __init__(self, version: str = "letters") -> None:
        self.version = version
        self.calls: list[list[str]] = []
        self.threads: set[str] = set()
        self.may_go = threading.Event()
        self.may_go.set()

    def embed(self, texts: Sequence[str]) -> Vector:
        """Return one row a text; the text `fail` cannot be read."""
        assert self.may_go.wait(20)
        self.calls.append(list(texts))
        self.threads.add(threading.current_thread().name)
        if "fail" in texts:
            raise ValueError("cannot read this")
        rows = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for letter in text.lower():
                row[ord(letter) % self.width] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def count(self, text: str) -> int:
        """Return how many letters there are."""
        return len(text)


class AtLeast:
    """Serves the nearest from a similarity on; forgets what was wrong."""

    def __init__(self, threshold: float = 0.9) -> None:
        self.threshold = threshold
        self.observed: list[tuple[str, bool]] = []

    def decide(self, asked: str, candidates: Sequence[Candidate], max_error: float) -> Decision:
        """Return the first candidate where it is near enough."""
        if not candidates:
            return Decision(None, reason="no candidate")
        near = candidates[0].similarity
        if near < self.threshold:
            return Decision(None, near, near, "far")
        return Decision(0, near, near, "near")

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Take note of an audited hit."""
        self.observed.append((entry_id, was_right))


class SameDigits:
    """Refuses questions that name other numbers."""

    def refuse(self, asked: str, stored: str) -> str | None:
        """Return why the stored question must not answer the asked one, or None."""
        ours, theirs = ([c for c in text if c.isdigit()] for text in (asked, stored))
        return None if ours == theirs else f"number: {ours} / {theirs}"


THINGS = ("password", "printer", "invoice", "passport", "garden", "bicycle", "kitchen", "violin",
          "camera", "mortgage", "sourdough", "telescope", "vaccine", "wedding", "tractor",
          "harbour")  # fmt: skip
ANSWERS = ("Open the settings.", "Call a lawyer in Paris.", "Use olive oil and salt.",
           "It was in the year of the comet.", "No, never.", "Three trains leave at noon.",
           "Paint it blue.")  # fmt: skip


class Contrary:
    """A model that never says the same thing twice in a row: whoever keeps its answers is wrong."""

    def __init__(self) -> None:
        self._asked = count()

    def __call__(self, received: Received) -> Script:
        """Return the script of the next answer."""
        return Says(ANSWERS[next(self._asked) % len(ANSWERS)], tokens=(10, 5))(received)


def in_other_words(thing: str) -> tuple[str, str]:
    """Return a question about one of THINGS, and the same in other words."""
    return f"How do I look after my {thing}?", f"how do I look after my {thing} please"
