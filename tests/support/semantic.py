"""Small parts of a semantic cache whose every answer can be worked out by hand."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from cache.semantic.embedder import Vector
from cache.semantic.types import Candidate, Decision


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
