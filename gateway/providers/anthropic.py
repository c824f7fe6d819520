"""Anthropic's Messages API behind the same chat endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from gateway.errors import ProviderRejected
from gateway.money.prices import price_of
from gateway.providers.chat import ChatClient
from gateway.providers.messages.breakpoints import add_breakpoints
from gateway.providers.messages.content import Uncarried
from gateway.providers.messages.models import Traits, traits_of
from gateway.providers.messages.reply import MessagesReader
from gateway.providers.messages.request import messages_request
from gateway.providers.openai import secret_of
from gateway.providers.prefixes import CacheRates, PrefixMemory
from gateway.upstream.choose import open_transport
from gateway.upstream.types import Connector, Origin
from gateway.wire import Part, ProviderCall
from policies.schema import Model

BASE_URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""The `anthropic-version` of requests and replies here.

The next one, 2026-10-21, takes temperature and top_p away from the models that have them.
"""


class MessagesDialect:
    """Asks in the Messages API's words, and reads its replies as chat completions."""

    def __init__(
        self,
        name: str,
        traits: Traits,
        max_output: int | None,
        *,
        memory: PrefixMemory | None,
        wall: Callable[[], float],
    ) -> None:
        self._name = name
        self._traits = traits
        self._max_output = max_output
        self._memory = memory
        self._wall = wall

    def body(self, call: ProviderCall) -> dict[str, Any]:
        """Return the Messages request. Raises ProviderRejected for what it cannot carry."""
        try:
            asked = messages_request(call.body, self._traits, self._max_output)
        except Uncarried as exc:
            raise ProviderRejected(
                f"model {self._name}: {exc}", status=400, code="unsupported", param=exc.param
            ) from exc
        if self._memory is not None:
            add_breakpoints(asked, self._memory, call.tenant, self._wall())
        return asked

    def reader(self, call: ProviderCall, model: str, secret: str | None) -> MessagesReader:
        """Return what reads one reply."""
        return MessagesReader(model, secret, self._wall())


class AnthropicProvider:
    """One model behind the Messages API."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client

    @classmethod
    def from_model(
        cls,
        name: str,
        model: Model,
        *,
        socket: Path | None = None,
        connect: Connector | None = None,
        wall: Callable[[], float] = time.time,
    ) -> Self:
        """Return the provider of a policy's model; see `OpenAIProvider.from_model`."""
        url = model.base_url or BASE_URL
        origin = Origin.of_url(url, model.tls.ca_file)
        transport = connect(origin) if connect else open_transport(origin, os.environ)
        traits = traits_of(model.model or name)
        secret = secret_of(name, model)
        key = (("x-api-key", secret),) if secret else ()
        return cls(
            ChatClient(
                name,
                transport,
                MessagesDialect(
                    name, traits, model.max_output, memory=_memory(name, model, wall()), wall=wall
                ),
                path=_path_of(url),
                secret=secret,
                headers=(*key, ("anthropic-version", VERSION)),
            )
        )

    def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        return self._client.call(call)

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aclose()


def _memory(name: str, model: Model, now: float) -> PrefixMemory | None:
    """Return what learns which prefixes to cache, at the model's own prices."""
    if model.prompt_cache == "off":
        return None
    price = price_of(name, model, datetime.fromtimestamp(now, UTC))
    rates = CacheRates()
    if price is not None and price.input:
        shares = (price.cached_input, price.cache_write, price.cache_write_1h)
        rates = CacheRates(*(float(share / price.input) for share in shares))
    return PrefixMemory(rates, least_tokens=traits_of(model.model or name).least_cached)


def _path_of(url: str) -> str:
    """Return the endpoint below a base URL, with or without its /v1."""
    path = urlsplit(url).path.rstrip("/")
    return f"{path}/messages" if path.endswith("/v1") else f"{path}/v1/messages"
