"""Chat completions as upstreams send them: what is read of them, and nothing else.

The structs name only the members that decide something; the rest is checked
for syntax and passes through in the upstream's own bytes.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.money.errors import UsageError
from gateway.money.usage import Usage
from gateway.money.usage_dialects import tier_of
from gateway.money.usage_map import usage_from_openai

_NULL = msgspec.Raw(b"null")


class ToolCall(msgspec.Struct, gc=False):
    """A tool call, or a piece of one."""

    index: int = 0
    id: str | None = None


class Message(msgspec.Struct, gc=False):
    """A message, or what a stream adds to it. `content` is text or a list of parts."""

    content: Any = None
    tool_calls: list[ToolCall] | None = None
    function_call: Any = None

    @property
    def text(self) -> str:
        """Return the text of the content."""
        content = self.content
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            return ""
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))


class Choice(msgspec.Struct, gc=False):
    """One choice of a whole reply (`message`) or of an event (`delta`)."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL


class Completion(msgspec.Struct, gc=False):
    """A whole reply or one event of a stream."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: msgspec.Raw = _NULL
    service_tier: str | None = None
    error: msgspec.Raw = _NULL
    frugal: msgspec.Raw = _NULL

    @property
    def has_error(self) -> bool:
        """Return whether this is an error in a reply's clothes."""
        return is_told(self.error)

    @property
    def has_usage(self) -> bool:
        """Return whether usage is reported, be it plausible or not."""
        return is_told(self.usage)


_completion = msgspec.json.Decoder(Completion)
_T = TypeVar("_T")


def parse_completion(data: bytes) -> Completion:
    """Return what matters of a reply or event.

    Raises ValueError for what is not JSON of that shape in UTF-8.
    """
    if not data.isascii():
        data.decode()  # members that are not read must be valid, too: they pass through
    return _completion.decode(data)


def is_told(member: msgspec.Raw) -> bool:
    """Return whether a member is there and not null."""
    return member is not _NULL and bytes(member) != b"null"


def read_usage(completion: Completion) -> Usage | None:
    """Return the reported usage; None where there is none, or none that can be true."""
    if not completion.has_usage:
        return None
    try:
        usage = usage_from_openai(msgspec.json.decode(completion.usage))
    except UsageError:
        return None
    if completion.service_tier is None or usage is None:
        return usage
    tier = tier_of(completion.service_tier)
    return replace(usage, tier=tier) if tier else usage
