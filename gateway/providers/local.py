"""A model in an engine process of our own, over its Unix socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Self

from gateway.engines import engine_name
from gateway.providers.chat import ChatClient
from gateway.providers.extras import EngineExtras
from gateway.providers.reply import ReplyReader, chat_reader
from gateway.upstream.pool import Pool
from gateway.upstream.types import Connector, Origin
from gateway.wire import Part, ProviderCall
from policies.schema import Model

_PATH = "/v1/chat/completions"


class EngineDialect:
    """Asks for the raw token statistics of our engine; its busy time comes unasked."""

    def __init__(self, asked: str) -> None:
        """Ask for a model, or an adapter, by the name that the engine knows."""
        self._asked = asked

    def body(self, call: ProviderCall) -> dict[str, Any]:
        """Return the body with usage and, if wanted, statistics asked for.

        The tenant goes along, so that the engine keeps computed prefixes apart.
        """
        asked: dict[str, Any] = {"token_stats": call.wants_stats}
        if call.tenant:
            asked["tenant"] = call.tenant
        body = {**call.body, "model": self._asked, "frugal": asked}
        if call.stream:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body

    def reader(self, call: ProviderCall, model: str, secret: str | None) -> ReplyReader:
        """Return what reads one reply, and hides the member `frugal`."""
        return chat_reader(call, model, secret, EngineExtras())


class LocalProvider:
    """One model of a local engine. Closing a call closes its connection, which ends the decode."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client

    @classmethod
    def from_model(
        cls,
        name: str,
        model: Model,
        *,
        socket: Path | None = None,
        connect: Connector = Pool,
    ) -> Self:
        """Return the provider of a policy's local model, whose engine listens on `socket`."""
        if socket is None:
            raise ValueError(f"models.{name}: expected the socket of its engine, found none")
        transport = connect(Origin.of_socket(socket))
        adapter = model.model if model.adapters is not None else None
        dialect = EngineDialect(adapter or engine_name(name, model))
        return cls(ChatClient(name, transport, dialect, path=_PATH))

    def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        return self._client.call(call)

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aclose()
