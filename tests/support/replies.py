"""What a model says, as an OpenAI-compatible server puts it on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.scripted_upstream import (
    STREAM_HEAD,
    Received,
    Script,
    Step,
    answer,
    chunk,
    event,
    stream,
)


@dataclass(frozen=True, slots=True)
class Says:
    """A model that answers every request with the same words, whole or streamed as asked.

    `tokens` are those of prompt and completion; `logprobs` one for each word.
    """

    text: str
    tokens: tuple[int, int] = (10, 5)
    logprobs: Sequence[float] | None = None
    name: str = "upstream-model"
    finish_reason: str = "stop"

    def __call__(self, received: Received) -> Script:
        """Return the script of one answer."""
        asked = received.json
        if asked.get("stream"):
            return stream(*self.events(has_logprobs=bool(asked.get("logprobs"))))
        return [answer(self.body(has_logprobs=bool(asked.get("logprobs"))))]

    def body(self, *, has_logprobs: bool = False) -> dict[str, Any]:
        """Return the whole reply."""
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": self.finish_reason,
        }
        if has_logprobs:
            choice["logprobs"] = {"content": self._told(range(len(self.words)))}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": self.name,
            "choices": [choice],
            "usage": self.usage,
        }

    def events(self, *, has_logprobs: bool = False) -> list[bytes]:
        """Return the events of the streamed reply: one a word, the finish, the usage."""
        said = [self._word(i, has_logprobs=has_logprobs) for i in range(len(self.words))]
        return [*said, self.finish(), self.usage_event()]

    @property
    def words(self) -> list[str]:
        """Return the text in the pieces that a stream sends."""
        first, *rest = self.text.split(" ")
        return [first, *(f" {word}" for word in rest)]

    @property
    def usage(self) -> dict[str, int]:
        """Return the usage as reported."""
        given, made = self.tokens
        return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}

    def finish(self) -> bytes:
        """Return the event that ends the choice."""
        choice = {"index": 0, "delta": {}, "finish_reason": self.finish_reason}
        return event({**self._head, "choices": [choice]})

    def usage_event(self) -> bytes:
        """Return the event about usage."""
        return event({**self._head, "choices": [], "usage": self.usage})

    def until(self, count: int, *, has_logprobs: bool = False) -> list[Step]:
        """Return the head and the first words of the stream, whose end is yet to come."""
        words = [self._word(i, has_logprobs=has_logprobs) for i in range(count)]
        return [STREAM_HEAD, *(chunk(word) for word in words)]

    def since(self, count: int, *, has_logprobs: bool = False) -> list[Step]:
        """Return what follows `until`."""
        _, *steps = stream(*self.events(has_logprobs=has_logprobs)[count:])
        return steps

    def _word(self, index: int, *, has_logprobs: bool) -> bytes:
        said = {"content": self.words[index]}
        choice: dict[str, Any] = {
            "index": 0,
            "delta": {"role": "assistant"} | said if index == 0 else said,
            "finish_reason": None,
        }
        if has_logprobs:
            choice["logprobs"] = {"content": self._told([index])}
        return event({**self._head, "choices": [choice]})

    def _told(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        sure = self.logprobs or [-0.01] * len(self.words)
        return [
            {
                "token": self.words[i],
                "logprob": sure[i],
                "top_logprobs": [
                    {"token": self.words[i], "logprob": sure[i]},
                    {"token": "other", "logprob": -9.0},
                ],
            }
            for i in indices
        ]

    @property
    def _head(self) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self.name,
        }


def refusal(status: str, message: str = "", *, code: str | None = None, **headers: str) -> bytes:
    """Return an error as OpenAI answers it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer({"error": error}, status=status, headers=named)


def in_turn(*scripts: Callable[[Received], Script]) -> Callable[[Received], Script]:
    """Answer the requests one after the other; the last script repeats."""
    left = list(scripts)

    def play(received: Received) -> Script:
        script = left.pop(0) if len(left) > 1 else left[0]
        return script(received)

    return play
