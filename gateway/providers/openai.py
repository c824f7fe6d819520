"""Any server that speaks OpenAI's chat completions, over HTTP or HTTPS."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from gateway.providers.cache_key import prompt_cache_key
from gateway.providers.chat import ChatClient
from gateway.providers.extras import LogprobExtras
from gateway.providers.reply import ReplyReader, chat_reader
from gateway.upstream.choose import open_transport
from gateway.upstream.types import Connector, Origin
from gateway.wire import Part, ProviderCall
from policies.schema import Model

_KEYED_HOSTS = ("api.openai.com", ".openai.azure.com")
_RIVALS = 2
"""Rivals of a token that a margin needs."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """What is known of a kind of server; `logprobs` holds unless the model declares its own."""

    base_url: str | None = None
    logprobs: bool = False


FLAVOURS: Mapping[str, Flavour] = {
    "openai": Flavour(base_url="https://api.openai.com/v1"),
    "vllm": Flavour(logprobs=True),
    "sglang": Flavour(logprobs=True),
    "llamacpp": Flavour(logprobs=True),
    "ollama": Flavour(),
    "tgi": Flavour(logprobs=True),
}


class OpenAIDialect:
    """Asks for usage in every stream, and for log-probabilities where they serve a verdict."""

    def __init__(self, *, has_logprobs: bool, has_cache_keys: bool = False) -> None:
        self._has_logprobs = has_logprobs
        self._has_cache_keys = has_cache_keys

    def body(self, call: ProviderCall) -> dict[str, Any]:
        """Return the body with `stream_options` and `logprobs` as we need them.

        Where prompts are cached by it, also with a `prompt_cache_key`, unless the client has one.
        """
        body = call.body
        if self._has_cache_keys and "prompt_cache_key" not in body:
            key = prompt_cache_key(body, call.tenant)
            body = body if key is None else {**body, "prompt_cache_key": key}
        if call.stream:
            options = {**(body.get("stream_options") or {}), "include_usage": True}
            body = {**body, "stream_options": options}
        if call.wants_stats and self._has_logprobs:
            rivals = max(_RIVALS, _rivals_asked(call.body) or 0)
            body = {**body, "logprobs": True, "top_logprobs": rivals}
        return body

    def reader(self, call: ProviderCall, model: str, secret: str | None) -> ReplyReader:
        """Return what reads one reply."""
        return chat_reader(call, model, secret, self._extras(call))

    def _extras(self, call: ProviderCall) -> LogprobExtras | None:
        """Return what reads the log-probabilities and hides those that were not asked for."""
        keep = _rivals_asked(call.body)
        if not call.wants_stats or not (self._has_logprobs or keep is not None):
            return None
        return LogprobExtras(keep, max(_RIVALS, keep or 0) if self._has_logprobs else keep)


def _path_of(url: str) -> str:
    """Return the endpoint below a base URL, whose query (an API version) stays."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + "/chat/completions"
    return f"{path}?{parts.query}" if parts.query else path


def secret_of(name: str, model: Model) -> str | None:
    """Return a model's key as it goes into a header. Raises ValueError without quoting it."""
    if model.api_key is None:
        return None
    secret = model.api_key.get_secret_value()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError(
            f"models.{name}.api_key: expected printable ASCII without spaces, found other "
            "characters; is there a line break at its end?"
        )
    return secret or None


def _has_cache_keys(model: Model, host: str) -> bool:
    """Return whether to send cache keys: to OpenAI itself, elsewhere only where it is written."""
    if model.prompt_cache == "off" or model.provider != "openai":
        return False
    return host.endswith(_KEYED_HOSTS) or "prompt_cache" in model.model_fields_set


def _rivals_asked(body: Mapping[str, Any]) -> int | None:
    """Return the rivals that the client asked for; None if it wants no log-probabilities."""
    if not body.get("logprobs"):
        return None
    rivals = body.get("top_logprobs")
    return rivals if isinstance(rivals, int) else 0


class OpenAIProvider:
    """One model behind one OpenAI-compatible server."""

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
    ) -> Self:
        """Return the provider of a policy's model; nothing is connected yet.

        `socket` is for engines of our own and not used here. Without `connect`,
        proxies are taken from the environment. Raises ValueError for a base_url,
        a key or an authority that cannot be used.
        """
        flavour = FLAVOURS.get(model.provider, Flavour())
        url = model.base_url or flavour.base_url
        if url is None:
            raise ValueError(f"models.{name}.base_url: expected an http or https URL, found none")
        origin = Origin.of_url(url, model.tls.ca_file)
        transport = connect(origin) if connect else open_transport(origin, os.environ)
        has_logprobs = flavour.logprobs if model.logprobs is None else model.logprobs
        return cls(
            ChatClient(
                name,
                transport,
                OpenAIDialect(
                    has_logprobs=has_logprobs, has_cache_keys=_has_cache_keys(model, origin.host)
                ),
                path=_path_of(url),
                secret=secret_of(name, model),
            )
        )

    def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        return self._client.call(call)

    async def aclose(self) -> None:
        """Release connections."""
        await self._client.aclose()
