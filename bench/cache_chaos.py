"""Gateways that share a Redis, under load, while Redis is killed, hung, flushed and filled.

    python -m bench.cache_chaos --seconds 4 --rate 100
    python -m bench.cache_chaos --limits        # rates are shared through the same Redis

Prints, for each thing that befalls Redis: requests, failures, the share answered
from the cache, and the 50th and 99th percentile of the latency beside those of a
calm Redis in the same run. Half of the requests repeat; half of all are streams.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from bench.cache_servers import WORDS, Redis, a_redis, answer, free_port, policy
from bench.processes import KEY, gateway

_ANSWER_AFTER_S = 0.03
# So wide that nothing is refused, by the share of one process either.
_LIMITS = {"requests_per_minute": 1_000_000, "concurrent": 4096, "without_redis": "local"}


@dataclass
class Phase:
    """What was seen while one thing befell Redis."""

    name: str
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    hits: int = 0

    def percentile(self, share: float) -> float:
        """Return a percentile of the latency, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _ask(client: httpx.AsyncClient, phase: Phase, prompt: str, *, stream: bool) -> None:
    asked = {
        "model": "auto",
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    }
    began = time.perf_counter()
    try:
        got = await client.post("/v1/chat/completions", json=asked)
    except httpx.HTTPError as exc:
        phase.failures.append(repr(exc))
        return
    phase.latencies.append(time.perf_counter() - began)
    is_whole = got.text.count("word ") == WORDS and '"error"' not in got.text
    if got.status_code != 200 or not is_whole:
        phase.failures.append(f"{got.status_code}: {got.text[:200]}")
    phase.hits += got.headers.get("x-cache") == "exact"


async def _load(client: httpx.AsyncClient, phase: Phase, seconds: float, rate: float) -> None:
    """Send at a steady rate, whatever comes back."""
    chance = random.Random(phase.name)
    loop = asyncio.get_running_loop()
    began, asked = loop.time(), set()
    for number in range(int(seconds * rate)):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        is_repeat = chance.random() < 0.5
        prompt = f"q{chance.randrange(50)}" if is_repeat else f"{phase.name} {number}"
        asked.add(asyncio.create_task(_ask(client, phase, prompt, stream=chance.random() < 0.5)))
    await asyncio.gather(*asked)


async def _befall(what: str, redis: Redis, seconds: float) -> None:
    """Let something happen to Redis for the middle half of a phase."""
    await asyncio.sleep(seconds / 4)
    begin, end = _TROUBLES[what]
    begin(redis)
    await asyncio.sleep(seconds / 2)
    end(redis)


def _nothing(redis: Redis) -> None:
    pass


def _flicker(redis: Redis) -> None:
    redis.kill()
    redis.start()


_TROUBLES: dict[str, tuple[Callable[[Redis], None], Callable[[Redis], None]]] = {
    "calm": (_nothing, _nothing),
    "killed": (Redis.kill, Redis.start),
    "hung": (
        lambda redis: redis.signal(signal.SIGSTOP),
        lambda redis: redis.signal(signal.SIGCONT),
    ),
    "flushed": (lambda redis: redis.say("FLUSHALL"), lambda redis: redis.say("FLUSHALL")),
    "full": (
        lambda redis: redis.say("CONFIG SET maxmemory 1"),
        lambda redis: redis.say("CONFIG SET maxmemory 0"),
    ),
    "flapping": (_flicker, _flicker),
}


def _written(folder: str, text: str) -> Path:
    os.chdir(folder)  # where the ledger goes
    path = Path(folder, "policy.yaml")
    path.write_text(text)
    return path


async def run(seconds: float, rate: float, limits: Mapping[str, Any]) -> list[Phase]:
    """Run every phase once, calm first."""
    model = partial(answer, after_s=_ANSWER_AFTER_S)
    upstream = await asyncio.start_server(model, "127.0.0.1", 0)
    phases = [Phase(name) for name in ("warm-up", *_TROUBLES)]
    with a_redis() as redis, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        text = policy(upstream.sockets[0].getsockname()[1], redis.port, workers=2, **limits)
        started = gateway(_written(folder, text), port)
        await asyncio.to_thread(started.__enter__)
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"authorization": f"Bearer {KEY}"},
                timeout=30,
                trust_env=False,
                limits=httpx.Limits(max_connections=64),
            ) as client:
                for phase in phases:
                    what: Awaitable[None] = _befall(
                        phase.name if phase.name in _TROUBLES else "calm", redis, seconds
                    )
                    await asyncio.gather(_load(client, phase, seconds, rate), what)
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
            upstream.close()
    return phases[1:]


def main() -> int:
    """Run from the command line; 1 when a request has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a phase")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--limits", action="store_true", help="share rates, too")
    asked = parser.parse_args()
    limits = {"limits": _LIMITS} if asked.limits else {}
    phases = asyncio.run(run(asked.seconds, asked.rate, limits))
    calm = phases[0]
    print("redis     requests  failed  from cache   p50 ms   p99 ms  added p99 ms")
    for phase in phases:
        added = phase.percentile(0.99) - calm.percentile(0.99)
        count = len(phase.latencies) + len(phase.failures)
        print(
            f"{phase.name:<9} {count:8d}  {len(phase.failures):6d}  "
            f"{phase.hits / max(1, count):9.0%}  {phase.percentile(0.5):7.1f}  "
            f"{phase.percentile(0.99):7.1f}  {added:12.1f}"
        )
        for failure in phase.failures[:3]:
            print(f"  failed: {failure}", file=sys.stderr)
    return 1 if any(phase.failures for phase in phases) else 0


if __name__ == "__main__":
    raise SystemExit(main())
