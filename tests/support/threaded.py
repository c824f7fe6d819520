"""A scripted upstream for tests that block: it plays in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.support.scripted_upstream import Received, Script, ScriptedUpstream


class _InThread(ScriptedUpstream):
    """A scripted upstream that says on which loop it plays."""

    loop: asyncio.AbstractEventLoop


@contextmanager
def upstream_in_thread(
    scripts: Sequence[Script] | Callable[[Received], Script],
) -> Iterator[_InThread]:
    """Yield an upstream that is served until the block is left."""
    loop = asyncio.new_event_loop()
    server = _InThread(scripts)
    server.loop = loop
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
