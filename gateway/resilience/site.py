"""A gateway at work under one policy, and how another policy takes its place.

What is new is built beside what runs; then one assignment swaps them. A request
keeps the pipeline it began with, and what only old requests use is closed once
the last of them has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from gateway.pipeline import Pipeline
from gateway.resilience.fleet import Fleet
from gateway.wire import Provider
from policies.loader import PolicyError, load_policy
from policies.schema import Model, Policy, Server

LOOK_EVERY_S = 1.0
_SETTLED_S = 1.0
"""Long enough for a request that has its pipeline to count as under way."""
_FIXED = (
    "host", "port", "admin_host", "admin_port", "workers", "drain", "reload",
    "head_within", "body_within", "send_within",
)  # fmt: skip
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One policy at work, with what is closed when it no longer is."""

    policy: Policy
    pipeline: Pipeline
    stack: AsyncExitStack


Build = Callable[[Policy, dict[str, Provider], AsyncExitStack], Awaitable[Pipeline]]
"""Wires a pipeline; what it opens goes on the stack."""


class Site:
    """An async context manager: entering begins with the first policy.

    `use` is told of every policy and its pipeline from then on; with a `path`,
    the policy is read from there again, on `reload` and where it says so on
    every change of the file. `trouble` is why the last one could not be followed.
    """

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        *,
        build: Build,
        use: Callable[[Policy, Pipeline], None],
        path: Path | None = None,
    ) -> None:
        self._first = policy
        self._fleet = fleet
        self._build = build
        self._use = use
        self._path = path
        self.trouble = ""
        self._turn = asyncio.Lock()
        self._live: list[Generation] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Site:
        try:
            await self._begin(self._first)
        except BaseException:
            await self._fleet.aclose()
            raise
        if self._path is not None and self._first.server.reload == "watch":
            self._watcher = asyncio.create_task(self._watch(self._path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [*self._retiring, *([self._watcher] if self._watcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for generation in self._live:
            await generation.stack.aclose()
        await self._fleet.aclose()

    async def reload(self) -> bool:
        """Follow the policy as its file is now; one that cannot be followed changes nothing.

        Return whether it is followed.
        """
        if self._path is None:
            return False
        async with self._turn:
            try:
                wanted = await asyncio.to_thread(load_policy, self._path, os.environ)
                followed = in_place_of(self._live[-1].policy, wanted)
                if followed.server != wanted.server or followed.storage != wanted.storage:
                    fixed = ", ".join(_FIXED)
                    _log.warning("server.(%s) and storage change with a restart only", fixed)
                await self._begin(followed)
            except Exception as exc:
                # Whatever is wrong with it, an outsider's class included: the old one serves on.
                _log.error("the policy stays as it was: %s", exc)
                self.trouble = str(exc)
                await self._fleet.keep_only(each.policy for each in self._live)
                return False
        _log.info("the policy was read again and is followed from now on")
        return True

    async def loaded(self) -> None:
        """Wait until each engine of this process serves, or has failed to."""
        await self._fleet.loaded()

    def provider(self, name: str, model: Model) -> Provider | None:
        """Return who calls a model as it is described, None where nobody does."""
        return self._fleet.provider(name, model)

    def socket(self, name: str, model: Model) -> Path | None:
        """Return where the engine of a model listens, None where it has none."""
        try:
            return self._fleet.socket(name, model) if model.provider == "local" else None
        except KeyError:
            return None

    async def _begin(self, policy: Policy) -> None:
        async with AsyncExitStack() as stack:
            providers = await self._fleet.providers(policy)
            pipeline = await self._build(policy, providers, stack)
            generation = Generation(policy, pipeline, stack.pop_all())
        old = self._live[-1] if self._live else None
        self._live.append(generation)
        self._use(policy, pipeline)
        if old is not None:
            task = asyncio.create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, old: Generation) -> None:
        """Close what only the old policy used, once its last request has ended."""
        await asyncio.sleep(_SETTLED_S)
        while old.pipeline.under_way:  # noqa: ASYNC110 - looked at so that requests need not tell
            await asyncio.sleep(_SETTLED_S)
        await old.stack.aclose()
        self._live.remove(old)
        async with self._turn:
            await self._fleet.keep_only(each.policy for each in self._live)

    async def _watch(self, path: Path) -> None:
        """Read the policy again once its file has changed and then stayed as it is for a look."""
        followed = last = _stamp(path)
        if await asyncio.to_thread(_is_another, path, self._first):
            await self.reload()  # it was changed while we started
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = _stamp(path)
            if now == last and now != followed:
                followed = now
                await self.reload()
            last = now


def _is_another(path: Path, policy: Policy) -> bool:
    """Return whether a file has another policy than this, in what can be changed."""
    try:
        return in_place_of(policy, load_policy(path, os.environ)) != policy
    except (PolicyError, OSError, UnicodeDecodeError):
        return False  # if it is changed to something better, that will be seen


def in_place_of(old: Policy, new: Policy) -> Policy:
    """Return the new policy with what only a restart can change as it was."""
    fixed = {name: getattr(old.server, name) for name in _FIXED}
    server = Server.model_validate({**new.server.model_dump(), **fixed})
    return new.model_copy(update={"server": server, "storage": old.storage})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with the file's content; None while there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
