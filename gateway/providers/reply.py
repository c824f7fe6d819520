"""One reply as it is read: whole, or event by event."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from gateway.errors import ProviderError, ProviderProtocolError
from gateway.money.usage import Usage
from gateway.providers.completion import Choice, Completion, Message, parse_completion, read_usage
from gateway.providers.failures import error_within
from gateway.sse import Event, SseError
from gateway.wire import Part, ProviderCall
from router.types import TokenStats


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
        finished = self._finished
        return bool(finished) and len(finished) >= self._expected and self._seen <= finished

    def whole(self, body: bytes) -> Part:
        """Return a whole reply as one part. Raises ProviderProtocolError."""
        completion = self._parse(body)
        choices = completion.choices
        if not choices:
            raise self.broken("expected at least one choice, found none")
        text, calls = "", 0
        for choice in choices:
            if (message := choice.message) is None:
                raise self.broken("expected a message in every choice, found none")
            text += message.text
            calls += _count_calls(message)
        data, stats = self._take(completion, body)
        finish = choices[0].finish_reason or None
        usage = self._usage(completion)
        return Part(data, text, finish, usage, stats, completion.model, calls)

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
        if self._finished and self._is_repeated(choices):
            return self._repeated(completion)
        text, finish, calls = self._note(choices)
        raw, stats = event.raw, None
        if self._extras is not None:
            left, stats = self._take(completion, data)
            raw = raw if left is data else b"data: " + left + b"\n\n"
        usage = self._usage(completion) if completion.has_usage else None
        return Part(raw, text, finish, usage, stats, completion.model, calls)

    def end(self) -> Part | None:
        """Check that the stream may end here; raises ProviderProtocolError. Nothing is left."""
        # Servers that ignore `n` say [DONE] after one choice; a cut stream says nothing.
        finished, seen = self._finished, self._seen
        if not finished or seen - finished or (len(finished) < self._expected and not self.is_done):
            raise self.broken("the stream ended without a finish_reason")
        return None

    def forgive(self, exc: ProviderError | SseError) -> None:
        """Raise what broke the stream, unless every choice had finished: then any end will do."""
        if self.is_finished:
            return
        if isinstance(exc, SseError):
            raise self.broken(str(exc)) from exc
        raise exc

    def broken(self, what: str) -> ProviderProtocolError:
        """Return the failure of a reply that is none."""
        return ProviderProtocolError(f"model {self._model}: {what}")

    # Inside

    def _parse(self, data: bytes) -> Completion:
        try:
            completion = parse_completion(data)
        except (ValueError, RecursionError) as exc:
            raise self.broken("expected a chat completion as JSON, found something else") from exc
        if completion.has_error:
            raise error_within(data, self._model, self._secret)
        return completion

    def _take(self, completion: Completion, data: bytes) -> tuple[bytes, TokenStats | None]:
        if self._extras is None:
            return data, None
        try:
            taken = self._extras.take(completion, data)
        except ValueError as exc:
            raise self.broken("expected token statistics, found something else") from exc
        self._compute_s += taken.compute_s
        return taken.data, taken.stats

    def _usage(self, completion: Completion) -> Usage | None:
        usage = read_usage(completion)
        if usage is not None and self._compute_s:
            return replace(usage, compute_s=self._compute_s)
        return usage

    def _without_choices(self, completion: Completion, event: Event) -> Part:
        """Return the event that carries only usage, or a preamble such as Azure's."""
        if completion.choices is None and not completion.has_usage:
            raise self.broken("expected an event with choices, found one without")
        left, _ = self._take(completion, event.data)
        usage = self._usage(completion)
        raw = event.raw if left is event.data else b"data: " + left + b"\n\n"
        return Part(raw, usage=usage, model=completion.model, is_usage_only=completion.has_usage)

    def _is_repeated(self, choices: list[Choice]) -> bool:
        """Return whether every choice here had been finished, and finishes again."""
        finished = self._finished
        return all(choice.finish_reason and choice.index in finished for choice in choices)

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
        seen = self._seen
        for choice in choices:
            if choice.index not in seen:
                seen.add(choice.index)
            if choice.finish_reason:  # some servers write "" for not yet
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


def chat_reader(
    call: ProviderCall, model: str, secret: str | None, extras: Extras | None
) -> ReplyReader:
    """Return what reads the chat completion that a call asks for."""
    count = call.body.get("n")
    expected = count if isinstance(count, int) and count > 0 else 1
    return ReplyReader(model, secret, expected, extras)


def _count_calls(message: Message) -> int:
    if message.tool_calls is None and message.function_call is None:
        return 0
    return len(message.tool_calls or ()) + (message.function_call is not None)
