"""One chat completion asked of an upstream: send, check, read, let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from gateway.errors import ProviderError
from gateway.providers.failures import MAX_ERROR_BODY, error_within, failure_of, read_error
from gateway.sse import Event, SseError, SseSplitter
from gateway.upstream.types import Deadlines, Headers, Response, Transport
from gateway.wire import Part, ProviderCall

_encode = msgspec.json.Encoder().encode


class Reader(Protocol):
    """Reads one reply, whole or event by event; `is_finished` once every choice has ended."""

    is_done: bool

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is missing but the end."""
        ...

    def whole(self, body: bytes) -> Part:
        """Return a whole reply as one part. Raises ProviderError."""
        ...

    def event(self, event: Event) -> Part | None:
        """Return an event as a part; None for one that nobody needs. Raises ProviderError."""
        ...

    def end(self) -> Part | None:
        """Return what is left to say at the end. Raises ProviderError for a cut stream."""
        ...

    def forgive(self, exc: ProviderError | SseError) -> None:
        """Raise what broke the stream, unless nothing was missing."""
        ...

    def broken(self, what: str) -> ProviderError:
        """Return the failure of a reply that is none."""
        ...


class Dialect(Protocol):
    """How one kind of server is asked, and how its replies are read."""

    def body(self, call: ProviderCall) -> dict[str, Any]:
        """Return the body to send; the call's own is left as it is."""
        ...

    def reader(self, call: ProviderCall, model: str, secret: str | None) -> Reader:
        """Return what reads the reply to one call, and takes out of it what `body` has added."""
        ...


class ChatClient:
    """Asks one upstream for replies; the key goes as a bearer unless `headers` are given."""

    def __init__(
        self,
        model: str,
        transport: Transport,
        dialect: Dialect,
        *,
        path: str,
        secret: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        self._model = model
        self._transport = transport
        self._dialect = dialect
        self._path = path
        self._secret = secret
        if headers is None:
            headers = (("authorization", f"Bearer {secret}"),) if secret else ()
        self._headers = headers

    async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        reader = self._dialect.reader(call, self._model, self._secret)
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
            rest = reader.end()
            if rest is not None:
                yield rest
            response.finish()
        finally:
            response.abort()

    async def aclose(self) -> None:
        """Release connections."""
        await self._transport.aclose()

    async def _ask(self, call: ProviderCall) -> Response:
        headers = (*self._headers, ("x-request-id", call.request_id), *call.trace)
        body = _encode(self._dialect.body(call))
        deadlines = _deadlines(call)
        return await self._transport.request(self._path, headers, body, deadlines, call.again)

    async def _refusal(self, response: Response, reader: Reader) -> ProviderError | None:
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
