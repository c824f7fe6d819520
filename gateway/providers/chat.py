"""One chat completion asked of an upstream: send, check, read, let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from gateway.errors import ProviderError
from gateway.providers.failures import MAX_ERROR_BODY, error_within, failure_of, read_error
from gateway.providers.reply import Extras, ReplyReader
from gateway.sse import SseError, SseSplitter
from gateway.upstream.types import Deadlines, Response, Transport
from gateway.wire import Part, ProviderCall

_encode = msgspec.json.Encoder().encode


class Dialect(Protocol):
    """How one kind of server wants to be asked for more than the client asks for."""

    def body(self, call: ProviderCall) -> dict[str, Any]:
        """Return the body to send; the call's own is left as it is."""
        ...

    def extras(self, call: ProviderCall) -> Extras | None:
        """Return what takes out of the reply what `body` has added; None if nothing."""
        ...


class ChatClient:
    """Asks one upstream for chat completions."""

    def __init__(
        self,
        model: str,
        transport: Transport,
        dialect: Dialect,
        *,
        path: str,
        secret: str | None = None,
    ) -> None:
        self._model = model
        self._transport = transport
        self._dialect = dialect
        self._path = path
        self._secret = secret
        self._headers = (("authorization", f"Bearer {secret}"),) if secret else ()

    async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        reader = ReplyReader(
            self._model, self._secret, _expected(call.body), self._dialect.extras(call)
        )
        response = await self._ask(call)
        try:
            if response.status != 200:
                raise await failure_of(response, self._model, self._secret)
            if not call.stream:
                yield reader.whole(await response.read())
                return
            if (refusal := await self._refusal(response, reader)) is not None:
                raise refusal
            splitter = SseSplitter()
            try:
                is_open = True
                while is_open:
                    chunk = await response.next_chunk()
                    for event in splitter.feed(chunk) if chunk else splitter.close():
                        response.has_started = True
                        if (part := reader.event(event)) is not None:
                            yield part
                            response.is_ending = reader.is_finished
                    is_open = bool(chunk) and not reader.is_done
            except (ProviderError, SseError) as exc:
                reader.forgive(exc)
            reader.end()
            response.finish()
        finally:
            response.abort()

    async def aclose(self) -> None:
        """Release connections."""
        await self._transport.aclose()

    async def _ask(self, call: ProviderCall) -> Response:
        headers = (*self._headers, ("x-request-id", call.request_id))
        body = _encode(self._dialect.body(call))
        return await self._transport.request(self._path, headers, body, _deadlines(call))

    async def _refusal(self, response: Response, reader: ReplyReader) -> ProviderError | None:
        """Return the failure of an answer that says by its type that it is no stream."""
        kind = response.header("content-type") or ""
        if "json" in kind:
            body = await response.read(MAX_ERROR_BODY)
            if read_error(body, self._secret).message:
                return error_within(body, self._model, self._secret)
        elif "html" not in kind:
            return None
        return reader.broken("expected a stream of events, found a whole document")


def _deadlines(call: ProviderCall) -> Deadlines:
    """Return the deadlines of a call.

    A whole reply begins when it is complete, which may rightly take longer
    than a first token. It is held to `first_token` only where that was set.
    """
    limits = call.timeouts
    first = limits.first_token
    if not call.stream and "first_token" not in limits.model_fields_set:
        first = limits.total
    return Deadlines(limits.connect, first, limits.idle, limits.total)


def _expected(body: dict[str, Any]) -> int:
    count = body.get("n")
    return count if isinstance(count, int) and count > 0 else 1
