"""Start the gateway and the kit's tools for a benchmark, and look at what they use."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "sk-bench-0123456789"
_READY_WITHIN_S = 180.0
_STOPPED_WITHIN_S = 60.0


@contextmanager
def built_kit(kit: Path) -> Iterator[Path]:
    """Yield the kit where it is built already, else a copy of it that we build."""
    if (kit / "bin" / "mock").exists() and (kit / "bodies").exists():
        yield kit
        return
    with tempfile.TemporaryDirectory(prefix="frugal-kit-") as name:
        shutil.copytree(kit, name, dirs_exist_ok=True)
        subprocess.run(["make", "-s"], cwd=name, check=True)
        yield Path(name)


@contextmanager
def running(command: Sequence[str], *, ready: str | None = None) -> Iterator[int]:
    """Run a process, wait until `ready` answers, yield its id, and stop it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        if ready is not None:
            wait_until_ready(ready, process)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def gateway(policy: Path, port: int) -> Iterator[int]:
    """Run `frugal serve` on loopback; yield its process id once it is ready."""
    with running(
        frugal_command(policy, port), ready=f"http://127.0.0.1:{port}/health/ready"
    ) as pid:
        yield pid


def free_port() -> int:
    """Return a port of loopback on which nobody listens, nor on the one above it."""
    while True:
        with socket.socket() as lower, socket.socket() as upper:
            lower.bind(("127.0.0.1", 0))
            port: int = lower.getsockname()[1]
            try:
                upper.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def frugal_command(policy: Path, port: int, *more: str) -> list[str]:
    """Return the command that serves a policy on loopback, its admin port beside."""
    frugal = Path(sys.executable).with_name("frugal")
    ports = ["--port", str(port), "--admin-port", str(port + 1)]
    return [str(frugal), "serve", str(policy), *ports, *more]


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once `url` answers; exit where the process behind it ends before that."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the process behind {url} ended with status {process.returncode}")
        try:
            with opener.open(url, timeout=2):
                return
        except urllib.error.HTTPError as exc:
            if exc.code != 503:  # it answers, and does not say that it is not ready
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer within {_READY_WITHIN_S:.0f} s")


def load(kit: Path, port: int, body: str, options: Mapping[str, object]) -> dict[str, Any]:
    """Run the kit's load generator once and return what it printed; times in microseconds."""
    command = [str(kit / "bin" / "load"), "-p", str(port), "-H", f"Authorization: Bearer {KEY}",
               "-f", str(kit / "bodies" / f"{body}.json")]  # fmt: skip
    command += [text for name, value in options.items() for text in (f"-{name}", str(value))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process tree, shared pages counted once a process."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    for each in tree(pid):
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * page
        except OSError:
            continue
    return total / 1e6
