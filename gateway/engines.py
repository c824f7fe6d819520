"""The engine processes behind a policy's local models."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from policies.schema import Policy

if TYPE_CHECKING:
    from local_engine.supervise import EngineProcess


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
    from local_engine.supervise import EngineProcess  # torch stays unloaded without a local model

    async with AsyncExitStack() as stack:
        # A short path: a Unix socket's may hold some hundred bytes only.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frugal-")))
        engines: list[EngineProcess] = []
        sockets = dict(already)
        for number, (name, model) in enumerate(wanted.items()):
            sockets[name] = folder / f"{number}.sock"
            engine = EngineProcess(
                model.checkpoint or "",
                uds=sockets[name],
                model_name=name,
                quantization=model.quantization,
                threads=model.threads,
                max_batch=model.max_batch,
            )
            engines.append(await stack.enter_async_context(engine))
        yield sockets
