"""Real replies of real models, played back: the provider `recorded`.

A policy can so be tried on a table of outcomes without a key and without a
cent: each model answers the recorded prompts with what it really said, at the
tokens it really took, at a stated pace. A prompt counts as recorded when the
last user message equals it; system messages and earlier turns are not looked
at, since they are what the recorded model was given, too. Token limits of the
request change nothing, and there are no log-probabilities.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import ProviderRejected, ProviderTimeout
from gateway.money.usage import Usage
from gateway.wire import Part, ProviderCall
from policies.schema import Latency, Model
from router.outcomes import read_outcomes
from router.types import OutcomesError

Sleep = Callable[[float], Awaitable[None]]
_PIECE = re.compile(r"(?:\S+\s*){1,4}|\s+")
_COLUMNS = ("prompt", "response", "prompt_tokens", "completion_tokens")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded reply; `usage` is None where the table has no token counts."""

    text: str
    usage: Usage | None = None

    @property
    def output_tokens(self) -> int:
        """Return the length of the reply in tokens, as a guess of four bytes each if unknown."""
        return self.usage.output if self.usage else len(self.text) // 4 + 1


class RecordedProvider:
    """One model of a table of outcomes."""

    def __init__(
        self,
        name: str,
        recordings: Mapping[str, Recording],
        *,
        latency: Latency | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._recordings = recordings
        self._latency = latency or Latency.model_validate({})
        self._sleep = sleep
        self._clock = clock

    @classmethod
    def from_model(
        cls, name: str, model: Model, *, socket: Path | None = None, sleep: Sleep = asyncio.sleep
    ) -> RecordedProvider:
        """Read the replies of one model of a policy. Raises OutcomesError."""
        if model.outcomes is None:
            raise OutcomesError(f"models.{name}: provider recorded needs `outcomes`: a table")
        recorded_name = model.model or name
        recordings = _read(model.outcomes, recorded_name)
        return cls(recorded_name, recordings, latency=model.latency, sleep=sleep)

    @classmethod
    def of(
        cls,
        replies: Mapping[str, str],
        *,
        name: str = "recorded",
        latency: Latency | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> RecordedProvider:
        """Play back plain texts, by prompt; a word counts as a token."""
        recordings = {
            prompt.strip(): Recording(
                reply, Usage(input=len(prompt.split()), output=len(reply.split()))
            )
            for prompt, reply in replies.items()
        }
        return cls(name, recordings, latency=latency, sleep=sleep, clock=clock)

    async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the recorded reply, whole or in pieces.

        Raises ProviderRejected for a prompt that was not recorded, and
        ProviderTimeout where the stated pace is beyond the deadlines.
        """
        prompt = _last_user_text(call.body)
        recording = self._recordings.get(prompt)
        if recording is None:
            raise self._not_recorded(prompt)
        _check_one_choice(call.body)
        envelope = _Envelope(_reply_id(prompt), int(self._clock()), self._name)
        if call.stream:
            async for part in self._streamed(call, recording, envelope):
                yield part
        else:
            yield await self._whole(call, recording, envelope)

    async def aclose(self) -> None:
        """Release nothing: the table was read when this was built."""

    async def _whole(self, call: ProviderCall, reply: Recording, envelope: _Envelope) -> Part:
        await self._pause(
            self._latency.first_token + self._pace(reply), call.timeouts.total, "a whole reply"
        )
        return Part(
            envelope.whole(reply),
            text=reply.text,
            finish_reason="stop",
            usage=reply.usage,
            model=self._name,
        )

    async def _streamed(
        self, call: ProviderCall, reply: Recording, envelope: _Envelope
    ) -> AsyncGenerator[Part, None]:
        await self._pause(self._latency.first_token, call.timeouts.first_token, "the first token")
        shows_usage = bool((call.body.get("stream_options") or {}).get("include_usage"))
        yield Part(envelope.event({"role": "assistant", "content": ""}), model=self._name)
        pieces = _PIECE.findall(reply.text)
        for piece in pieces:
            await self._pause(self._pace(reply) / len(pieces), call.timeouts.idle, "the next token")
            yield Part(envelope.event({"content": piece}), text=piece)
        usage = None if shows_usage else reply.usage
        yield Part(envelope.event({}, finish_reason="stop"), finish_reason="stop", usage=usage)
        if shows_usage and reply.usage is not None:
            yield Part(envelope.usage_event(reply.usage), usage=reply.usage, is_usage_only=True)

    def _pace(self, reply: Recording) -> float:
        rate = self._latency.tokens_per_second
        return 0.0 if rate is None else reply.output_tokens / rate

    async def _pause(self, wait_s: float, limit_s: float, what: str) -> None:
        if wait_s > limit_s:
            await self._sleep(limit_s)
            raise ProviderTimeout(
                f"{self._name} (recorded) takes {wait_s:.3g} s for {what}; the route allows "
                f"{limit_s:.3g} s"
            )
        if wait_s > 0:
            await self._sleep(wait_s)

    def _not_recorded(self, prompt: str) -> ProviderRejected:
        shown = prompt if len(prompt) <= 80 else prompt[:77] + "..."
        return ProviderRejected(
            f"{self._name} is a recorded model and has no reply to {shown!r}; send the text of one "
            f"of its {len(self._recordings)} recorded prompts as the last user message",
            status=404,
            code="not_recorded",
            param="messages",
        )


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What all JSON of one reply has in common."""

    id: str
    created: int
    model: str

    def whole(self, reply: Recording) -> bytes:
        message = {"role": "assistant", "content": reply.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        body = {**self._head("chat.completion"), "choices": [choice]}
        if reply.usage is not None:
            body["usage"] = _usage_json(reply.usage)
        return msgspec.json.encode(body)

    def event(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def usage_event(self, usage: Usage) -> bytes:
        head = self._head("chat.completion.chunk")
        return _event({**head, "choices": [], "usage": _usage_json(usage)})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def _usage_json(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }


def _reply_id(prompt: str) -> str:
    return "chatcmpl-" + hashlib.blake2b(prompt.encode(), digest_size=12).hexdigest()


def _read(path: Path, model: str) -> dict[str, Recording]:
    table = read_outcomes(path, columns=_COLUMNS, models=(model,))
    recordings: dict[str, Recording] = {}
    for row in table:
        if row.prompt is None or row.response is None or row.sample:
            continue
        # Interned, so that the models of one table share the text of their prompts.
        prompt = sys.intern(row.prompt.strip())
        counts = (row.prompt_tokens, row.completion_tokens)
        recordings.setdefault(prompt, Recording(row.response, _usage(*counts)))
    if not recordings:
        raise OutcomesError(
            f"{path}: model {model!r} has no row with both a prompt and a response; "
            "a recorded model needs replies in full"
        )
    return recordings


def _usage(prompt_tokens: int | None, completion_tokens: int | None) -> Usage | None:
    if prompt_tokens is None or completion_tokens is None:
        return None
    return Usage(input=prompt_tokens, output=completion_tokens)


def _last_user_text(body: Mapping[str, Any]) -> str:
    """Return the text of the last user message; content in parts is joined."""
    for message in reversed(body["messages"]):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                content = "".join(part.get("text") or "" for part in content)
            return (content or "").strip()
    return ""


def _check_one_choice(body: Mapping[str, Any]) -> None:
    if (body.get("n") or 1) > 1:
        raise ProviderRejected(
            "a recorded model has one reply a prompt; leave n out or set it to 1",
            status=400,
            code="unsupported_value",
            param="n",
        )
