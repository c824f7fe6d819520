"""Tokens in disjoint buckets: each token is counted, and billed, in exactly one."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one call. `input` excludes cached and written ones, `output` excludes reasoning.

    `cache_write` is kept for the provider's usual time, `cache_write_1h` for an
    hour. `audio` was heard and `audio_output` spoken: they are priced apart.
    `tier` is the service tier that was billed, empty for the standard one.
    `compute_s` is the busy time of a machine of ours, in seconds, where the
    model is priced by the hour. `estimated` marks a count that is ours and not
    the provider's. A struct, since several are made for every request.
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
    audio_output: int = 0
    cache_write_1h: int = 0
    tier: str = ""

    @property
    def total(self) -> int:
        """Return all tokens, whatever their bucket."""
        return (
            self.input + self.cached_input + self.cache_write + self.output
            + self.reasoning + self.audio + self.image + self.audio_output + self.cache_write_1h
        )  # fmt: skip

    @property
    def prompt(self) -> int:
        """Return the tokens that were read, fresh or cached: what prices by length go by."""
        return (
            self.input + self.cached_input + self.cache_write + self.cache_write_1h
            + self.audio + self.image
        )  # fmt: skip


NOTHING = Usage()


def total_usage(usages: Iterable[Usage]) -> Usage:
    """Add up several calls; the sum is `estimated` when any of them is."""
    calls = list(usages)
    if len(calls) <= 1:
        return calls[0] if calls else NOTHING
    return Usage(
        input=sum(call.input for call in calls),
        cached_input=sum(call.cached_input for call in calls),
        cache_write=sum(call.cache_write for call in calls),
        output=sum(call.output for call in calls),
        reasoning=sum(call.reasoning for call in calls),
        audio=sum(call.audio for call in calls),
        image=sum(call.image for call in calls),
        compute_s=sum(call.compute_s for call in calls),
        estimated=any(call.estimated for call in calls),
        audio_output=sum(call.audio_output for call in calls),
        cache_write_1h=sum(call.cache_write_1h for call in calls),
    )
