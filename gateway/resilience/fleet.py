"""Providers and engines by model: built once, kept over a reload that leaves them as they were."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.engines import command_of
from gateway.providers.build import build_provider
from gateway.resilience.balance import BalancedProvider
from gateway.wire import Provider
from policies.problems import PolicyError, Problem
from policies.schema import Model, Policy
from router.types import RouterError

if TYPE_CHECKING:
    from local_engine.supervise import EngineCommand, EngineProcess


@dataclass(frozen=True, slots=True)
class Berth:
    """A model's name and how it is described: what tells one provider from another."""

    name: str
    model: Model

    def __hash__(self) -> int:
        # A description holds mappings; those of one name are few, and compared.
        return hash(self.name)


class Fleet:
    """What calls models in one process.

    `given` takes the place of what would be built. `sockets` are of engines that
    somebody else runs, for the local models of the policy that we began with;
    a fleet that `is_one_of_many` leaves engines to whoever runs those.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        given: Mapping[str, Provider],
        sockets: Mapping[str, Path],
        is_one_of_many: bool = False,
    ) -> None:
        self._given = given
        self._is_one_of_many = is_one_of_many
        self._sockets = sockets
        self._lent = {
            command_of(name, model): sockets[name]
            for name, model in policy.models.items()
            if name in sockets
        }
        self._providers: dict[Berth, Provider] = {}
        self._engines: dict[EngineCommand, tuple[EngineProcess, AsyncExitStack]] = {}

    async def providers(self, policy: Policy) -> dict[str, Provider]:
        """Return the provider of each model, made where there is none like it.

        Raises PolicyError for a model that cannot be called as it is described, and for
        an engine that only who lends us engines can start.
        """
        if self._given:
            return dict(self._given)
        for name, model in policy.models.items():
            if Berth(name, model) not in self._providers:
                socket = await self._engine(name, model) if model.provider == "local" else None
                provider = self._providers[Berth(name, model)] = _built(name, model, socket)
                if isinstance(provider, BalancedProvider):
                    provider.begin()
        return {name: self._providers[Berth(name, model)] for name, model in policy.models.items()}

    async def keep_only(self, policies: Iterable[Policy]) -> None:
        """Close what none of these policies calls."""
        berths = {Berth(*each) for policy in policies for each in policy.models.items()}
        commands = {
            command_of(each.name, each.model) for each in berths if each.model.provider == "local"
        }
        unused = [self._providers.pop(berth) for berth in {*self._providers} - berths]
        stacks = [self._engines.pop(command)[1] for command in {*self._engines} - commands]
        await asyncio.gather(*(provider.aclose() for provider in unused))
        await asyncio.gather(*(stack.aclose() for stack in stacks))

    async def loaded(self) -> None:
        """Wait until each engine serves, or has failed to."""
        for process, _ in list(self._engines.values()):
            await process.settled()

    async def aclose(self) -> None:
        """Close everything, what was given too."""
        await asyncio.gather(*(provider.aclose() for provider in self._given.values()))
        await self.keep_only(())

    def socket(self, name: str, model: Model) -> Path:
        """Return where the engine of a local model listens; raises KeyError if there is none."""
        command = command_of(name, model)
        lent = self._lent.get(command)
        return lent if lent is not None else self._engines[command][0].path

    def provider(self, name: str, model: Model) -> Provider | None:
        """Return who calls a model as it is described, None where nobody does."""
        return self._given.get(name) or self._providers.get(Berth(name, model))

    async def _engine(self, name: str, model: Model) -> Path:
        """Start the engine of a local model unless it runs, and return its socket."""
        command = command_of(name, model)
        if command not in self._engines and command not in self._lent:
            if self._is_one_of_many:
                raise _not_ours(name)
            self._engines[command] = await _started(command)
        return self.socket(name, model)


def _built(name: str, model: Model, socket: Path | None) -> Provider:
    try:
        return build_provider(name, model, socket)
    except (ValueError, RouterError) as exc:  # bad authorities, a bad URL, unreadable outcomes
        raise _unusable(name, str(exc)) from exc


def _not_ours(name: str) -> PolicyError:
    return _unusable(name, "an engine that changes needs a restart where several workers share it")


def _unusable(name: str, message: str) -> PolicyError:
    where = f"models.{name}"
    if message.startswith(where) and ": " in message:
        where, _, message = message.partition(": ")
    return PolicyError([Problem("policy", 0, 0, where, message)])


async def _started(command: EngineCommand) -> tuple[EngineProcess, AsyncExitStack]:
    # Free of torch: the model lives in the child alone.
    from local_engine.supervise import EngineProcess

    stack = AsyncExitStack()
    return await stack.enter_async_context(EngineProcess(command)), stack
