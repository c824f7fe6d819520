"""Ask deployments from time to time whether they are well, so that no request has to find out."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from gateway.providers.anthropic import BASE_URL as ANTHROPIC
from gateway.providers.openai import FLAVOURS
from gateway.resilience.balance import Member
from gateway.upstream.choose import proxy_for
from gateway.upstream.tls import context_for
from gateway.upstream.types import Origin
from policies.resilience import HealthRules
from policies.schema import Model

if TYPE_CHECKING:
    import httpx

PATHS: Mapping[str, str] = {
    "anthropic": "/v1/models",
    "llamacpp": "/health",
    "ollama": "/api/version",
    "sglang": "/health",
    "tgi": "/health",
    "vllm": "/health",
}
"""What each kind of server answers when it is well; others list their models."""

_ALIVE = frozenset({401, 403, 429})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """One deployment, and what is asked of it."""

    member: Member
    model: Model


class HealthWatch:
    """Checks each deployment at its interval; an async task that `aclose` ends."""

    def __init__(
        self, checked: Sequence[Checked], rules: HealthRules, tick: Callable[[], float]
    ) -> None:
        self._checked = checked
        self._rules = rules
        self._tick = tick
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def begin(self) -> None:
        """Begin to check."""
        self._tasks = [asyncio.create_task(self._watch(each)) for each in self._checked]

    async def aclose(self) -> None:
        """Check no more, once the checks under way have ended."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, checked: Checked) -> None:
        url = url_of(checked.model, self._rules)
        async with _client(checked.model, url, self._rules) as client:
            while not self._stopping.is_set():
                fault = await _fault(client, url)
                self._note(checked.member, fault)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rules.interval * random.uniform(0.9, 1.1)):
                        await self._stopping.wait()

    def _note(self, member: Member, fault: str | None) -> None:
        was_down = member.is_down
        member.checked(fault is None, self._rules.failures, self._tick())
        if member.is_down and not was_down:
            _log.warning("%s is not asked from now on: its health check %s", member.name, fault)
        elif was_down and not member.is_down:
            _log.info("%s answers its health check again", member.name)


def url_of(model: Model, rules: HealthRules) -> str:
    """Return what is asked: the policy's path, or what such servers answer."""
    base_url = model.base_url
    if base_url is None:
        base_url = ANTHROPIC if model.provider == "anthropic" else FLAVOURS["openai"].base_url
    parts = urlsplit(base_url or "")
    path = rules.path or PATHS.get(model.provider) or f"{parts.path.rstrip('/')}/models"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query if not rules.path else "", ""))


def _client(model: Model, url: str, rules: HealthRules) -> httpx.AsyncClient:
    import httpx

    origin = Origin.of_url(url, model.tls.ca_file)
    secret = model.api_key.get_secret_value() if model.api_key else None
    return httpx.AsyncClient(
        verify=context_for(origin.ca_file) if origin.is_tls else False,
        proxy=proxy_for(origin, os.environ),
        trust_env=False,
        timeout=rules.timeout,
        headers={"authorization": f"Bearer {secret}"} if secret else {},
    )


async def _fault(client: httpx.AsyncClient, url: str) -> str | None:
    """Return what is wrong with a server, in words that follow its name; None if nothing is."""
    import httpx

    try:
        async with client.stream("GET", url) as response:
            is_well = response.is_success or response.status_code in _ALIVE
            return None if is_well else f"answered {response.status_code}"
    except httpx.TimeoutException:
        return "was not answered in time"
    except httpx.HTTPError as exc:
        return f"failed ({type(exc).__name__})"
