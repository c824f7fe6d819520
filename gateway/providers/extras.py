"""What the gateway asks of an upstream for itself, and takes out of the reply again."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.providers.completion import Completion, TokenLogprob
from gateway.providers.reply import Taken
from router.types import TokenStats

_encode = msgspec.json.Encoder().encode


class LogprobExtras:
    """Statistics from OpenAI's `logprobs`.

    `keep` is how many rivals of a token the client had asked for, None if it
    had asked for no log-probabilities at all; `asked` is what the upstream got.
    """

    def __init__(self, keep: int | None, asked: int | None) -> None:
        self._keep = keep
        self._asked = asked

    def take(self, completion: Completion, data: bytes) -> Taken:
        """Return the statistics of the first choice, and the JSON as the client wants it."""
        stats = _stats_of(completion)
        if self._keep == self._asked:
            return Taken(data, stats)
        return Taken(self._trimmed(data) if b'"logprobs"' in data else data, stats)

    def _trimmed(self, data: bytes) -> bytes:
        payload = msgspec.json.decode(data)
        for choice in payload.get("choices") or ():
            if self._keep is None:
                choice.pop("logprobs", None)
            else:
                _trim(choice.get("logprobs"), self._keep)
        return _encode(payload)


class _TokenStats(msgspec.Struct, gc=False):
    logprobs: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()


class _Frugal(msgspec.Struct, gc=False):
    token_stats: _TokenStats | None = None
    compute_s: float = 0.0


_frugal = msgspec.json.Decoder(_Frugal)


class EngineExtras:
    """Statistics and busy time from the member `frugal` of the local engine."""

    def take(self, completion: Completion, data: bytes) -> Taken:
        """Return what the member says, and the JSON without it. Raises msgspec.DecodeError."""
        raw = bytes(completion.frugal)
        if raw == b"null":
            return Taken(data)
        frugal = _frugal.decode(raw)
        told = frugal.token_stats
        stats = None
        if told is not None:
            stats = TokenStats(told.logprobs, told.margins, told.entropies, "raw")
        return Taken(_without_frugal(data, raw), stats, frugal.compute_s)


def _without_frugal(data: bytes, value: bytes) -> bytes:
    """Cut the member off where it stands last, as our engine writes it; else write anew.

    A quote within a string is escaped, so these bytes can only be that member.
    """
    tail = b',"frugal":' + value + b"}"
    if data.endswith(tail):
        return data[: -len(tail)] + b"}"
    payload: dict[str, Any] = msgspec.json.decode(data)
    del payload["frugal"]
    return _encode(payload)


def _stats_of(completion: Completion) -> TokenStats | None:
    first = next((c for c in completion.choices or () if c.index == 0), None)
    if first is None or first.logprobs is None or not first.logprobs.content:
        return None
    tokens = first.logprobs.content
    margins = tuple([margin for t in tokens if (margin := _margin(t)) is not None])
    return TokenStats(
        tuple([token.logprob for token in tokens]),
        margins if len(margins) == len(tokens) else (),
    )


def _margin(token: TokenLogprob) -> float | None:
    rivals = token.top_logprobs
    if rivals is None or len(rivals) < 2:
        return None
    best, second = sorted([rival.logprob for rival in rivals], reverse=True)[:2]
    return best - second


def _trim(logprobs: Any, keep: int) -> None:
    for kind in ("content", "refusal"):
        for token in (logprobs or {}).get(kind) or ():
            if isinstance(token.get("top_logprobs"), list):
                token["top_logprobs"] = token["top_logprobs"][:keep]
