"""Tokens, shaped as OpenAI's replies, with the token statistics the gateway reads."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from local_engine.openai_request import Ask
from local_engine.tokenizer import Tokenizer
from local_engine.tools import ToolCall
from local_engine.types import Finish, Token


class ReplyWriter:
    """Write the chunks of one reply, or fold them into a whole one."""

    def __init__(
        self, ask: Ask, tokenizer: Tokenizer, *, id: str, model: str, created: int
    ) -> None:
        self._ask = ask
        self._is_chat = ask.kind == "chat"
        self.choices = [_Choice(ask, tokenizer) for _ in ask.requests]
        self._head = {
            "id": id,
            "object": "chat.completion" if self._is_chat else "text_completion",
            "created": created,
            "model": model,
        }
        chunk_head = dict(self._head)
        if self._is_chat:
            chunk_head["object"] = "chat.completion.chunk"
        if ask.has_usage:
            chunk_head["usage"] = None  # type: ignore[assignment]
        self._chunk_head = chunk_head

    def chunks(self, index: int, tokens: Sequence[Token], finish: Finish | None) -> bytes:
        """Write what one choice gained as server-sent events; may be nothing."""
        choice = self.choices[index]
        events = []
        if self._is_chat and not choice.has_begun:
            events.append(self._chunk(index, {"role": "assistant", "content": ""}))
        choice.has_begun = True
        text, logprobs = choice.add(tokens, finish)
        delta = {"content": text} if text else {}
        delta |= choice.take_calls()
        frugal = choice.take_stats() if delta or finish else None
        if finish is not None:
            frugal = {**(frugal or {}), **_costs([finish]), **_faults([choice])}
        if delta or finish is not None:
            events.append(self._chunk(index, delta, choice.reason, logprobs, frugal))
        return b"".join(events)

    def last_chunks(self) -> bytes:
        """Write the usage, where asked for, and the end mark."""
        if not self._ask.has_usage:
            return b"data: [DONE]\n\n"
        value: dict[str, Any] = {**self._chunk_head, "choices": [], "usage": self.usage()}
        return sse(value) + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """Fold finished choices into one reply, the likeliest where more were made than asked."""
        stats: dict[str, Any] = {}
        chosen = self._chosen()
        if self._ask.has_token_stats:
            parts = [c.take_stats()["token_stats"] for c in chosen]
            stats = {"token_stats": {k: [v for p in parts for v in p[k]] for k in parts[0]}}
        costs = _costs([c.finish for c in self.choices if c.finish])
        return {
            **self._head,
            "choices": [self._whole_choice(index, c) for index, c in enumerate(chosen)],
            "usage": self.usage(),
            "frugal": {**stats, **costs, **_faults(chosen)},
        }

    def _chosen(self) -> list[_Choice]:
        """Return of each prompt's answers those with the highest log-probability per token."""
        each, kept = self._ask.best_of, self._ask.copies
        if each == kept:
            return self.choices
        groups = (self.choices[n : n + each] for n in range(0, len(self.choices), each))
        return [c for g in groups for c in sorted(g, key=lambda c: -c.likelihood)[:kept]]

    def usage(self) -> dict[str, int]:
        """Count each prompt once, however many answers it has."""
        prompts = {r.prompt: len(r.prompt) for r in self._ask.requests}
        prompt = sum(prompts.values())
        completion = sum(c.finish.completion_tokens for c in self.choices if c.finish)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        frugal: dict[str, Any] | None = None,
    ) -> bytes:
        body = {"delta": delta} if self._is_chat else {"text": delta.get("content", "")}
        choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": reason}
        value: dict[str, Any] = {**self._chunk_head, "choices": [choice]}
        if frugal:
            value["frugal"] = frugal
        return sse(value)

    def _whole_choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        text = "".join(choice.texts)
        if self._is_chat:
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
            if calls := choice.calls:
                message |= {"content": text or None, "tool_calls": [c.as_openai() for c in calls]}
            body: dict[str, Any] = {"message": message}
        else:
            body = {"text": text}
        return {
            "index": index,
            **body,
            "logprobs": choice.all_logprobs(),
            "finish_reason": choice.reason,
        }


class _Choice:
    """One answer as it grows: its text, log-probabilities and statistics."""

    def __init__(self, ask: Ask, tokenizer: Tokenizer) -> None:
        self._ask = ask
        self._tokenizer = tokenizer
        self.has_begun = False
        self._reader = None if ask.tools is None else ask.tools.reader()
        self._calls_taken = 0
        self.texts: list[str] = []
        self.finish: Finish | None = None
        self._stats: list[Token] = []
        self._pending: deque[tuple[int, Token]] = deque()
        self._visible: list[Token] = []
        self._produced = 0
        self._released = 0
        self._offset = 0
        self._logprob_sum = 0.0
        self._count = 0

    @property
    def likelihood(self) -> float:
        """Return the mean log-probability of its tokens."""
        return self._logprob_sum / max(1, self._count)

    @property
    def calls(self) -> list[ToolCall]:
        """Return the tool calls that were read so far."""
        return [] if self._reader is None else self._reader.calls

    @property
    def faults(self) -> list[str]:
        """Return what was wrong with the calls that are none."""
        return [] if self._reader is None else self._reader.faults

    @property
    def reason(self) -> str | None:
        """Return OpenAI's word for how it ended, or ours for a call that is none."""
        reason = None if self.finish is None else self.finish.reason
        if reason != "stop":
            return reason
        if self.faults:
            return "malformed_tool_call"
        return "tool_calls" if self.calls else reason

    def take_calls(self) -> dict[str, Any]:
        """Return the calls since the last time, as part of a delta."""
        first, self._calls_taken = self._calls_taken, len(self.calls)
        new = self.calls[first:]
        return {"tool_calls": [c.as_openai(first + n) for n, c in enumerate(new)]} if new else {}

    def add(
        self, tokens: Sequence[Token], finish: Finish | None
    ) -> tuple[str, dict[str, Any] | None]:
        """Take in tokens; return the text they release and the entries that belong to it."""
        self.finish = finish
        released = text = "".join(t.text for t in tokens)
        if self._reader is not None:
            text = self._reader.push(text, is_final=finish is not None)
        self.texts.append(text)
        if self._ask.best_of > self._ask.copies:
            self._logprob_sum += sum(t.logprob for t in tokens)
            self._count += len(tokens)
        if self._ask.has_token_stats:
            self._stats += [t for t in tokens if not t.is_forced]
        if not self._ask.has_logprobs:
            return text, None
        visible = self._take_visible(tokens, released)
        self._visible += visible
        return text, self._logprobs(visible) if visible else None

    def take_stats(self) -> dict[str, Any]:
        """Return the statistics of the tokens since the last call, if asked for."""
        if not self._ask.has_token_stats:
            return {}
        tokens, self._stats = self._stats, []
        return {
            "token_stats": {
                "logprobs": [_rounded(t.logprob) for t in tokens],
                "margins": [_rounded(t.margin) for t in tokens],
                "entropies": [_rounded(t.entropy) for t in tokens],
            }
        }

    def all_logprobs(self) -> dict[str, Any] | None:
        self._offset = 0
        return self._logprobs(self._visible) if self._ask.has_logprobs else None

    def _take_visible(self, tokens: Sequence[Token], text: str) -> list[Token]:
        """Return the tokens whose text has left; a stop string's own tokens never do."""
        for token in tokens:
            if token.data:
                self._pending.append((self._produced, token))
                self._produced += len(token.data)
        self._released += len(text.encode(errors="replace"))
        visible = []
        while self._pending and self._pending[0][0] < self._released:
            visible.append(self._pending.popleft()[1])
        return visible

    def _logprobs(self, tokens: list[Token]) -> dict[str, Any]:
        if self._ask.kind == "chat":
            return {"content": [self._entry(t) for t in tokens], "refusal": None}
        texts = [t.data.decode(errors="replace") for t in tokens]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [_rounded(t.logprob) for t in tokens],
            "top_logprobs": [self._top_by_text(t) for t in tokens],
            "text_offset": offsets,
        }

    def _entry(self, token: Token) -> dict[str, Any]:
        top = [_logprob(self._tokenizer.label(id), value) for id, value in token.top]
        return {**_logprob(token.data, token.logprob), "top_logprobs": top}

    def _top_by_text(self, token: Token) -> dict[str, float]:
        # Two tokens may read alike once their bytes are text; the likelier one stands.
        pairs = [(self._tokenizer.label(id).decode(errors="replace"), v) for id, v in token.top]
        return {text: _rounded(value) for text, value in reversed(pairs)}


def sse(value: Any) -> bytes:
    """Write one server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _rounded(value: float) -> float:
    """Cut what fp32 cannot tell, and the sign of a zero."""
    return round(value, 6) + 0.0


def _logprob(data: bytes, value: float) -> dict[str, Any]:
    text = data.decode(errors="replace")
    return {"token": text, "logprob": _rounded(value), "bytes": list(data)}


def _faults(choices: list[_Choice]) -> dict[str, Any]:
    faults = [fault for c in choices for fault in c.faults]
    return {"malformed_tool_calls": faults} if faults else {}


def _costs(finishes: list[Finish]) -> dict[str, float]:
    """Sum computing over choices; they wait at the same time, so waiting is the longest."""
    return {
        "compute_s": round(sum(f.compute_s for f in finishes), 9),
        "queue_s": round(max((f.queue_s for f in finishes), default=0.0), 9),
    }
