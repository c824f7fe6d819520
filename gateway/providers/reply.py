"""One reply as it is read: whole, or event by event."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from gateway.errors import ProviderProtocolError
from gateway.money.usage import Usage
from gateway.providers.completion import Choice, Completion, Message, parse_completion, read_usage
from gateway.providers.failures import error_within
from gateway.sse import Event
from gateway.wire import Part
from router.types import TokenStats

_EMPTY = Message()


class Taken(NamedTuple):
    """What was taken out of a reply or event besides the reply; `data` is the JSON that is left."""

    data: bytes
    stats: TokenStats | None = None
    compute_s: float = 0.0


class Extras(Protocol):
    """Reads, and removes, what the gateway and not the client has asked for."""

    def take(self, completion: Completion, data: bytes) -> Taken:
        """Return the statistics, and the JSON without what the client did not ask for.

        Where nothing is removed, `data` comes back as the same object.
        """
        ...


class ReplyReader:
    """Reads one reply: an object for each call."""

    __slots__ = (
        "_calls",
        "_compute_s",
        "_expected",
        "_extras",
        "_finished",
        "_model",
        "_secret",
        "_seen",
        "is_done",
    )

    def __init__(
        self, model: str, secret: str | None, expected: int, extras: Extras | None
    ) -> None:
        self.is_done = False
        self._model = model
        self._secret = secret
        self._expected = expected
        self._extras = extras
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._calls: set[tuple[int, int | str]] = set()
        self._compute_s = 0.0

    @property
    def is_finished(self) -> bool:
        """Return whether every choice has its finish_reason."""
        return len(self._finished) >= self._expected and self._seen <= self._finished

    def whole(self, body: bytes) -> Part:
        """Return a whole reply as one part. Raises ProviderProtocolError."""
        completion = self._parse(body)
        choices = completion.choices
        if not choices or any(choice.message is None for choice in choices):
            raise self._broken("expected at least one choice with a message, found none")
        data, stats = self._take(completion, body)
        messages = [choice.message or _EMPTY for choice in choices]
        return Part(
            data,
            "".join([message.text for message in messages]),
            choices[0].finish_reason,
            self._usage(completion),
            stats,
            completion.model,
            sum(_count_calls(message) for message in messages),
        )

    def event(self, event: Event) -> Part | None:
        """Return an event as a part; None for one that nobody needs.

        Raises ProviderProtocolError for what is no event of a reply.
        """
        data = event.data
        if data == b"[DONE]":
            self.is_done = True
            return None
        completion = self._parse(data)
        choices = completion.choices
        if event.name == b"error":
            raise error_within(data, self._model, self._secret)
        if not choices:
            return self._without_choices(completion, event)
        if self._is_repeated(choices):
            return self._repeated(completion)
        text, finish, calls = self._note(choices)
        left, stats = self._take(completion, data)
        raw = event.raw if left is data else b"data: " + left + b"\n\n"
        return Part(raw, text, finish, self._usage(completion), stats, completion.model, calls)

    def end(self) -> None:
        """Check that the stream may end here. Raises ProviderProtocolError."""
        # Servers that ignore `n` say [DONE] after one choice; a cut stream says nothing.
        finished, seen = self._finished, self._seen
        if not finished or seen - finished or (len(finished) < self._expected and not self.is_done):
            raise self._broken("the stream ended without a finish_reason")

    def broken(self, what: str) -> ProviderProtocolError:
        """Return the failure of a reply that is none."""
        return self._broken(what)

    # Inside

    def _parse(self, data: bytes) -> Completion:
        try:
            completion = parse_completion(data)
        except (ValueError, RecursionError) as exc:
            raise self._broken("expected a chat completion as JSON, found something else") from exc
        if completion.has_error:
            raise error_within(data, self._model, self._secret)
        return completion

    def _take(self, completion: Completion, data: bytes) -> tuple[bytes, TokenStats | None]:
        if self._extras is None:
            return data, None
        try:
            taken = self._extras.take(completion, data)
        except ValueError as exc:
            raise self._broken("expected token statistics, found something else") from exc
        self._compute_s += taken.compute_s
        return taken.data, taken.stats

    def _usage(self, completion: Completion) -> Usage | None:
        usage = read_usage(completion.usage)
        if usage is not None and self._compute_s:
            return replace(usage, compute_s=self._compute_s)
        return usage

    def _without_choices(self, completion: Completion, event: Event) -> Part:
        """Return the event that carries only usage, or a preamble such as Azure's."""
        usage = self._usage(completion)
        if completion.choices is None and usage is None:
            raise self._broken("expected an event with choices, found one without")
        is_usage = bytes(completion.usage) != b"null"
        left, _ = self._take(completion, event.data)
        raw = event.raw if left is event.data else b"data: " + left + b"\n\n"
        return Part(raw, usage=usage, model=completion.model, is_usage_only=is_usage)

    def _is_repeated(self, choices: list[Choice]) -> bool:
        """Return whether every choice here had been finished, and finishes again."""
        finished = self._finished
        return bool(finished) and all(
            choice.finish_reason is not None and choice.index in finished for choice in choices
        )

    def _repeated(self, completion: Completion) -> Part | None:
        """Drop a second finish, but keep the usage that came with it."""
        usage = self._usage(completion)
        if usage is None:
            return None
        left = {"object": "chat.completion.chunk", "choices": [], "usage": completion.usage}
        raw = b"data: " + msgspec.json.encode(left) + b"\n\n"
        return Part(raw, usage=usage, model=completion.model, is_usage_only=True)

    def _note(self, choices: list[Choice]) -> tuple[str, str | None, int]:
        """Return text, finish_reason and tool calls begun; remember who has finished."""
        text, finish, calls = "", None, 0
        for choice in choices:
            self._seen.add(choice.index)
            if choice.finish_reason is not None:
                finish = choice.finish_reason
                self._finished.add(choice.index)
            if (delta := choice.delta) is not None:
                text += delta.text
                if delta.tool_calls:
                    calls += self._begun(choice.index, delta)
        return text, finish, calls

    def _begun(self, index: int, delta: Message) -> int:
        """Return how many tool calls begin here: not all servers number them, nor repeat ids."""
        begun = 0
        for call in delta.tool_calls or ():
            places = {(index, call.index), (index, call.id or call.index)}
            is_new = (index, call.id or call.index) not in self._calls
            begun += is_new
            self._calls |= places
        return begun

    def _broken(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"model {self._model}: {what}")


def _count_calls(message: Message) -> int:
    return len(message.tool_calls or ()) + (message.function_call is not None)
