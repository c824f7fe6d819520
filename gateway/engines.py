"""The engine processes behind a policy's local models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from policies.schema import Model, Policy

if TYPE_CHECKING:
    from local_engine.supervise import EngineCommand


@asynccontextmanager
async def running_engines(
    policy: Policy, *, already: Mapping[str, Path]
) -> AsyncIterator[dict[str, Path]]:
    """Run one engine for each local model that has none yet; yield all their sockets.

    An engine that is still loading, or that crashed and is being restarted, is
    a tier that fails at once, not a gateway that does not start.
    """
    wanted = {
        name: model
        for name, model in policy.models.items()
        if model.provider == "local" and name not in already
    }
    if not wanted:
        yield dict(already)
        return
    from local_engine.supervise import EngineProcess

    async with AsyncExitStack() as stack:
        started: dict[EngineCommand, Path] = {}
        commands = {name: command_of(name, model) for name, model in wanted.items()}
        for command in commands.values():
            if command not in started:
                engine = await stack.enter_async_context(EngineProcess(command))
                started[command] = engine.path
        yield dict(already) | {name: started[command] for name, command in commands.items()}


def engine_name(name: str, model: Model) -> str:
    """Return what the engine of a local model calls it; models of one engine have one name."""
    return name if model.adapters is None else f"{Path(model.checkpoint or name).name} (base)"


def command_of(name: str, model: Model) -> EngineCommand:
    """Return how the engine of a local model is started."""
    # Free of torch: the model lives in the child alone.
    from local_engine.supervise import EngineCommand

    return EngineCommand(
        model.checkpoint or "",
        model_name=engine_name(name, model),
        quantization=model.quantization,
        kv=model.kv,
        threads=model.threads,
        max_batch=model.max_batch,
        max_queue=model.max_queue,
        max_context=model.context,
        guesses=model.guesses,
        draft=model.draft,
        adapters=None if model.adapters is None else str(model.adapters),
        is_long=model.long_context,
        niceness=10,  # requests that pass through go first, and a waiting draft loses little
    )
