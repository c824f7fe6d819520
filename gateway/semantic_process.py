"""The process of the semantic cache, shared by the workers and kept alive beside them."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cache.backoff import Backoff
from policies.schema import Policy

_STOPS_WITHIN_S = 10.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def running_semantic_process(policy: Policy) -> AsyncIterator[Path | None]:
    """Run the process that a policy's routes need; yield its socket, None where none does.

    It is started anew whenever it ends, on the same socket.
    """
    if not needs_process(policy):
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="frugal-"))
    keeper = asyncio.create_task(_keep(folder / "semantic.sock"))
    try:
        yield folder / "semantic.sock"
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        shutil.rmtree(folder, ignore_errors=True)


def needs_process(policy: Policy) -> bool:
    """Return whether any route asks for the meaning of requests."""
    return any(
        any(route.semantic_caches) or (route.cascade and route.confidence.kind == "learned")
        for route in policy.routes.values()
    )


async def _keep(socket: Path) -> None:
    loop = asyncio.get_running_loop()
    backoff = Backoff(first_s=0.1, most_s=10.0)
    while True:
        began = loop.time()
        status = await _run_once(socket)
        _log.error("the semantic cache's process ended with status %s; starting another", status)
        await asyncio.sleep(backoff.wait_after(loop.time() - began))


async def _run_once(socket: Path) -> int:
    """Run the process to its end; end it if we are cancelled."""
    # Free of torch; it keeps credentials for providers from a process that has no use for them.
    from local_engine.supervise import child_environment

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cache.semantic.process", str(socket)),
        stdin=asyncio.subprocess.PIPE,  # its end tells the process of ours
        env=child_environment(os.environ, threads=1),
        start_new_session=True,  # Ctrl-C is for us: workers may still have something to keep
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOPS_WITHIN_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
