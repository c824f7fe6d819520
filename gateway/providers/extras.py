"""What the gateway asks of an upstream for itself, and takes out of the reply again."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.providers.completion import Completion, is_told
from gateway.providers.reply import Taken
from router.types import TokenStats

_encode = msgspec.json.Encoder().encode


class TopLogprob(msgspec.Struct, gc=False):
    """One of the likeliest tokens."""

    logprob: float


class TokenLogprob(msgspec.Struct, gc=False):
    """The chosen token, and its rivals."""

    logprob: float
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """The log-probabilities of a choice, or of its newest tokens."""

    content: list[TokenLogprob] | None = None


_logprobs = msgspec.json.Decoder(Logprobs)


class LogprobExtras:
    """Statistics from OpenAI's `logprobs`.

    `keep` is how many rivals of a token the client had asked for, None if it
    had asked for no log-probabilities at all; `asked` is what the upstream got.
    """

    def __init__(self, keep: int | None, asked: int | None) -> None:
        self._keep = keep
        self._asked = asked

    def take(self, completion: Completion, data: bytes) -> Taken:
        """Return the statistics of the first choice, and the JSON as the client wants it.

        Log-probabilities that are none give no statistics; the reply may be good all the same.
        """
        told = [c for c in completion.choices or () if is_told(c.logprobs)]
        first = next((choice for choice in told if choice.index == 0), None)
        stats = None if first is None else _stats_of(first.logprobs)
        if not told or self._keep == self._asked:
            return Taken(data, stats)
        if self._keep is None:
            return Taken(_blanked(data, [bytes(choice.logprobs) for choice in told]), stats)
        return Taken(_trimmed(data, self._keep), stats)


def _blanked(data: bytes, values: list[bytes]) -> bytes:
    """Put null in place of log-probabilities, as where none were asked for.

    A quote within a string is escaped, so these bytes can only be that member;
    a spelling other than the usual two is written anew.
    """
    for value in values:
        for name in (b'"logprobs":', b'"logprobs": '):
            left = data.replace(name + value, name + b"null", 1)
            if left != data:
                break
        else:
            return _trimmed(data, None)
        data = left
    return data


def _trimmed(data: bytes, keep: int | None) -> bytes:
    payload = msgspec.json.decode(data)
    for choice in payload.get("choices") or ():
        if keep is None:
            choice["logprobs"] = None
        else:
            _trim(choice.get("logprobs"), keep)
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


def _stats_of(raw: msgspec.Raw) -> TokenStats | None:
    try:
        tokens = _logprobs.decode(raw).content
    except msgspec.DecodeError:
        return None
    if not tokens:
        return None
    margins = [margin for token in tokens if (margin := _margin(token)) is not None]
    return TokenStats(
        tuple([token.logprob for token in tokens]),
        tuple(margins) if len(margins) == len(tokens) else (),
    )


def _margin(token: TokenLogprob) -> float | None:
    rivals = token.top_logprobs
    if rivals is None or len(rivals) < 2:
        return None
    if len(rivals) == 2:
        return abs(rivals[0].logprob - rivals[1].logprob)
    best, second = sorted([rival.logprob for rival in rivals], reverse=True)[:2]
    return best - second


def _trim(logprobs: Any, keep: int) -> None:
    for kind in ("content", "refusal"):
        for token in (logprobs or {}).get(kind) or ():
            if isinstance(token.get("top_logprobs"), list):
                token["top_logprobs"] = token["top_logprobs"][:keep]
