"""The shapes that travel along the request's way: a request, and parts of a reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from gateway.money.usage import Usage
from gateway.upstream.types import Again
from policies.schema import Timeouts
from router.types import TokenStats


class Part(msgspec.Struct, frozen=True):
    """A piece of a reply: the bytes as they may leave, with what was parsed from them.

    A whole reply is one part holding the upstream's JSON body. A streamed reply
    is one part an event, each `data: {…}\\n\\n`; the closing `data: [DONE]` is
    never a part, since it may leave only once the ledger is durable.
    `stats` covers the tokens of this part alone. `usage` is cumulative and
    stands in the part that carried it.
    """

    data: bytes
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    stats: TokenStats | None = None
    model: str | None = None
    tool_calls: int = 0
    is_usage_only: bool = False


class ProviderCall(msgspec.Struct, frozen=True):
    """One call to one model. `body` is the client's, `model` already the upstream's name.

    `stream` may differ from what the client asked for; `body` agrees with it.
    `wants_stats` asks for token statistics where the provider can give them:
    the provider then adds what it must to the body, and takes from the reply
    what the client did not ask for. `tenant` keeps what is learned of prompts
    apart. `asked` names the deployments that this
    request was sent to; whoever chooses one adds it. `again` hears of it before
    the call is put on the wire a second time. `trace` goes with it as headers.
    """

    body: dict[str, Any]
    stream: bool
    wants_stats: bool
    timeouts: Timeouts
    request_id: str
    asked: set[str] | None = None
    tenant: str = ""
    again: Again | None = None
    trace: tuple[tuple[str, str], ...] = ()


class Provider(Protocol):
    """Someone who answers chat completions: the extension point `provider`."""

    def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; closing the generator cancels the work behind it.

        Raises the ProviderError tree. A stream ends normally only after a
        `finish_reason` was seen for every choice; a reply whose usage was not
        reported ends with `usage` None in every part.
        """
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
