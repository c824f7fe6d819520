"""Which event loops the contract tests run on."""

from __future__ import annotations

import asyncio

import uvloop

# What differs between loops: sockets, transports, timers.
ON_BOTH_LOOPS = ("test_transports.py",)


def pytest_asyncio_loop_factories(item):
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name in ON_BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops
