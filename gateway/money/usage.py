"""Tokens in disjoint buckets: each token is counted, and billed, in exactly one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` excludes cached and written ones, `output` excludes reasoning.

    `compute_s` is the busy time of a machine of ours, in seconds, where the
    model is priced by the hour. `estimated` marks a count that is ours and not
    the provider's.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    audio: int = 0
    image: int = 0
    compute_s: float = 0.0
    estimated: bool = False

    @property
    def total(self) -> int:
        """Return all tokens, whatever their bucket."""
        return (
            self.input + self.cached_input + self.cache_write + self.output
            + self.reasoning + self.audio + self.image
        )
