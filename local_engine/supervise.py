"""Keep one engine server alive as a child process, and say where it listens.

Free of torch: the gateway imports this, and the model lives in the child alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from local_engine.errors import EngineUnavailable

log = logging.getLogger(__name__)

# What a child needs from our environment. Credentials for providers and databases are
# nothing that a process reading foreign checkpoints should hold.
_ENVIRONMENT = (
    "CUDA",
    "FRUGAL_NATIVE",
    "HF_",
    "HOME",
    "HTTPS_PROXY",
    "LANG",
    "LC_",
    "LD_LIBRARY_PATH",
    "NO_PROXY",
    "NVIDIA",
    "PATH",
    "PYTHON",
    "SSL_",
    "TMPDIR",
    "TORCH",
    "VIRTUAL_ENV",
    "XDG_",
)
_LONGEST_SOCKET_PATH = 100
_LINE_BYTES = 4096

State = Literal["starting", "up", "down", "closed"]


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """What the child serves, and how much of the machine it may take.

    `threads` None is half of the cores; `niceness` lets the proxy go first. A `draft` is a
    checkpoint that guesses, `adapters` a directory of them, and `is_long` the stretched
    context of models that have two.
    """

    checkpoint: str
    model_name: str
    quantization: str = "none"
    kv: str = "model"
    threads: int | None = None
    max_batch: int = 8
    max_queue: int = 64
    max_context: int | None = None
    guesses: int | None = None
    draft: str | None = None
    adapters: str | None = None
    is_long: bool = False
    niceness: int = 5
    drain_s: float = 2.0

    def arguments(self, socket: Path) -> list[str]:
        """Return the command line for a server on this socket."""
        optional = {
            "--threads": self.threads,
            "--max-context": self.max_context,
            "--guesses": self.guesses,
            "--draft": self.draft,
            "--adapters": self.adapters,
        }
        return [
            *(sys.executable, "-m", "local_engine.server", self.checkpoint),
            *("--uds", str(socket), "--exit-with-stdin"),
            *("--model-name", self.model_name, "--quantization", self.quantization),
            *("--kv", self.kv),
            *("--max-batch", str(self.max_batch), "--max-queue", str(self.max_queue)),
            *("--niceness", str(self.niceness), "--drain", str(self.drain_s)),
            *(("--long",) if self.is_long else ()),
            *(part for k, v in optional.items() if v is not None for part in (k, str(v))),
        ]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart; a child that lived `healthy_s` starts anew."""

    first_s: float = 0.5
    most_s: float = 30.0
    healthy_s: float = 60.0

    def delay(self, failures: int) -> float:
        """Return the wait after so many failures in a row."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures, 16))


class EngineProcess:
    """An engine server in a child process, restarted when it dies.

    An async context manager: entering starts the child and does not wait for it. The child
    ends with the context, and by itself if this process is killed.
    """

    def __init__(
        self,
        command: EngineCommand,
        *,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.command = command
        self.state: State = "starting"
        self.restarts = 0
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._changed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._last_line = ""
        self._directory: Path | None = None

    async def __aenter__(self) -> EngineProcess:
        self._directory = Path(tempfile.mkdtemp(prefix="frugal-"))
        if len(str(self.path)) > _LONGEST_SOCKET_PATH:
            raise EngineUnavailable(
                f"The path {self.path} is too long for a socket; set TMPDIR to a shorter one."
            )
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.wait((self._keeper,))
        await self._set_state("closed")
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def path(self) -> Path:
        """Return the socket's path; it stays the same over restarts."""
        if self._directory is None:
            raise EngineUnavailable("The engine process was not started.")
        return self._directory / "engine.sock"

    @property
    def pid(self) -> int | None:
        """Return the child's process id, or None between two lives."""
        return self._process.pid if self._process is not None else None

    def socket(self) -> Path:
        """Return the path to connect to; raises `EngineUnavailable` unless it is up."""
        if self.state != "up":
            raise self._unavailable()
        return self.path

    async def ready(self, timeout_s: float = 300.0) -> Path:
        """Wait until the child answers; raises `EngineUnavailable` when it ends first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.settled()
        except TimeoutError as exc:
            raise EngineUnavailable(
                f"The engine for {self.command.model_name} did not load within {timeout_s:g} s."
            ) from exc
        return self.socket()

    async def settled(self) -> None:
        """Wait until the child answers or has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state != "starting")

    def _unavailable(self) -> EngineUnavailable:
        reason = f": {self._last_line}" if self.state == "down" and self._last_line else "."
        return EngineUnavailable(
            f"The engine for {self.command.model_name} is {self.state}{reason}"
        )

    async def _set_state(self, state: State) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()

    async def _keep(self) -> None:
        """Start the child, wait for its end, and start it again."""
        failures = 0
        while True:
            started = self._clock()
            await self._run_once()
            if self._clock() - started >= self._backoff.healthy_s:
                failures = 0
            delay = self._backoff.delay(failures)
            log.warning(
                "the engine for %s ended; it starts again in %.1f s: %s",
                self.command.model_name,
                delay,
                self._last_line,
            )
            failures += 1
            await self._set_state("down")
            await asyncio.sleep(delay)
            self.restarts += 1
            await self._set_state("starting")

    async def _run_once(self) -> None:
        """Run the child to its end; end it if we are cancelled."""
        self._last_line = ""
        process = await asyncio.create_subprocess_exec(
            *self.command.arguments(self.path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=child_environment(os.environ, self.command.threads),
            start_new_session=True,  # Ctrl-C is ours to handle: the child drains after us
        )
        self._process = process
        drain = asyncio.create_task(self._drain(process))
        health = asyncio.create_task(self._watch_health())
        try:
            await process.wait()
            await asyncio.wait((drain,))
        finally:
            health.cancel()
            self._process = None
            await self._end(process)
            await asyncio.wait((drain, health))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask the child to stop, then make it."""
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.command.drain_s + 3.0):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _drain(self, process: asyncio.subprocess.Process) -> None:
        """Log what the child prints, so that its pipe never fills."""
        assert process.stdout is not None
        rest = b""
        while data := await process.stdout.read(_LINE_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._note(line)
            if len(rest) > _LINE_BYTES:
                self._note(rest)
                rest = b""
        self._note(rest)

    def _note(self, line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            self._last_line = text[:500]
            log.info("%s: %s", self.command.model_name, text)

    async def _watch_health(self) -> None:
        """Poll the new child until it answers for the first time."""
        delay = 0.02
        while not await is_healthy(self.path):
            await asyncio.sleep(delay)
            delay = min(0.25, delay * 1.5)
        await self._set_state("up")


async def is_healthy(socket: Path) -> bool:
    """Ask `/health` over a Unix socket; false while nobody listens or it still loads."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    try:
        writer.write(b"GET /health HTTP/1.1\r\nhost: engine\r\nconnection: close\r\n\r\n")
        line = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
    return line.split(b" ")[1:2] == [b"200"]


def child_environment(own: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return what of our environment the child gets, with its thread bounds."""
    kept = {k: v for k, v in own.items() if k.upper().startswith(_ENVIRONMENT)}
    count = str(threads or max(1, (os.cpu_count() or 2) // 2))
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    return kept | {
        "OMP_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
    }
