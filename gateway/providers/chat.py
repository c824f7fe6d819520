"""One chat completion asked of an upstream: send, check, read, let go."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from gateway.errors import ProviderError, ProviderProtocolError
from gateway.providers.failures import MAX_ERROR_BODY, error_within, failure_of
from gateway.providers.reply import Extras, ReplyReader
from gateway.sse import SseError, SseSplitter
from gateway.upstream.types import Deadlines, Headers, Response, Transport
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
        response = await self._ask(call)
        try:
            if response.status != 200:
                raise await failure_of(response, self._model, self._secret)
            reader = self._reader(call)
            if not call.stream:
                yield reader.whole(await response.read())
                return
            await self._check_is_stream(response)
            splitter = SseSplitter()
            while not reader.is_done and (chunk := await self._next(response, reader)):
                for part in _parts(splitter, reader, chunk):
                    yield part
                response.has_started = True
                response.is_ending = reader.is_finished
            for part in _parts(splitter, reader, None):
                yield part
            reader.end()
            response.finish()
        finally:
            response.abort()

    async def aclose(self) -> None:
        """Release connections."""
        await self._transport.aclose()
