"""What guards and the full ledger add to a request, over HTTP: on against off, in one run.

    python -m bench.guards --kit ../perf-kit --rounds 5
    python -m bench.guards --kit ../perf-kit --redis redis://127.0.0.1:6379/0

Gateways of one worker stand beside each other and take turns at the same load:

- bare: keys, exact cache and an entry a request; no call is written down before it is made
- ledger: as the product does without limits
- guards: rates, concurrency and budgets of key, tenant and route, a breaker and retries
- traces: as the ledger, one request in ten traced and sent to a collector of our own
- Redis: guards, with limits that processes share

Told is the processor time of the whole process tree for 1,000 requests that the
cache does not know, and what each adds to `bare` (`traces`: to `ledger`): the
median over the rounds, and the difference of the least, which a busy machine
disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.processes import KEY, built_kit, free_port, frugal_command, gateway, load, running, tree

MOCK_PORT = 9021
SETTLE_S = 1.5
"""Work that was put off belongs to the load that caused it: spans are sent once a second."""
SAMPLE = 0.1
_BASE = {"traces": "ledger"}
"""What a case adds to, where that is not `bare`."""
_RATES = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 10_000_000_000,
    "concurrent": 4096,
    "budget": {"usd": 1_000_000, "per": "day"},
}
_GUARDS = {"breaker": {"failures": 0.5}, "retries": {"attempts": 2, "budget": 0.1}}


@dataclass(frozen=True, slots=True)
class Case:
    """What a gateway does beside its work; `collector` is the URL of who takes traces."""

    guarded: bool = False
    redis: str | None = None
    collector: str | None = None


def policy_of(folder: Path, case: Case) -> Path:
    """Write one case's policy and return its path; the ledger stands beside it."""
    price = {"input_per_mtok_usd": 0.15, "output_per_mtok_usd": 0.60}
    model = {"provider": "openai", "base_url": f"http://127.0.0.1:{MOCK_PORT}/v1", "price": price}
    route: dict[str, Any] = {"model": "gpt-4o-mini", "cache": {"exact": {"ttl": "24h"}}}
    key: dict[str, Any] = {"name": "bench", "tenant": "bench", "key": KEY}
    whole: dict[str, Any] = {
        "version": 1,
        "access": {"keys": [key]},
        "models": {"gpt-4o-mini": model},
        "routes": {"gpt-4o-mini": route},
        "storage": {"ledger": f"sqlite:///{folder / 'ledger.db'}"},
    }
    if case.guarded:
        route |= _GUARDS | {"limits": _RATES}
        key["limits"] = _RATES
        whole["limits"] = {**_RATES, "without_redis": "local"}
    if case.redis:
        # A busy machine is late; what is measured is no deadline.
        whole["storage"] |= {"redis": case.redis, "redis_within": "1s"}
    if case.collector:
        traces = {"endpoint": case.collector, "sample": SAMPLE, "follow": False}
        whole["telemetry"] = {"traces": traces}
    path = folder / "policy.yaml"
    path.write_text(json.dumps(whole))
    return path


def processor_s(pid: int) -> float:
    """Return the time on a processor of all threads of a process tree."""
    found = 0
    for each in tree(pid):
        for thread in Path(f"/proc/{each}/task").iterdir():
            found += int((thread / "schedstat").read_text().split()[0])
    return found / 1e9


def serve_bare(arguments: list[str]) -> None:
    """Serve without writing calls down before they are made: what the full ledger adds to."""
    from gateway.cli.main import main as frugal
    from gateway.intending import Intending

    Intending.announce = lambda *_: None  # type: ignore[method-assign]
    sys.argv = ["frugal", *arguments]
    frugal()


class _Collector(BaseHTTPRequestHandler):
    """Takes all traces, and says how many bytes of them came."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_POST(self) -> None:
        """Take what is sent."""
        type(self).taken += len(self.rfile.read(int(self.headers["content-length"])))
        self._answer(b"")

    def do_GET(self) -> None:
        """Say how much came."""
        self._answer(str(self.taken).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _taken(collector: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(collector, timeout=5) as answer:
        return int(answer.read())


@contextmanager
def _bare(policy: Path, port: int) -> Iterator[int]:
    _, *command = frugal_command(policy, port)
    ready = f"http://127.0.0.1:{port}/health/ready"
    with running([sys.executable, "-m", "bench.guards", "--bare", *command], ready=ready) as pid:
        yield pid


def _measure(kit: Path, port: int, pid: int, seconds: float) -> float:
    """Return processor seconds for 1,000 requests."""
    before = processor_s(pid)
    told = load(kit, port, "chat_1k", {"c": 16, "d": seconds, "w": 0.2})
    time.sleep(SETTLE_S)
    if told["errs"] or told["non200"]:
        raise SystemExit(f"expected answers alone, found {told['errs'] + told['non200']} failures")
    return (processor_s(pid) - before) / float(told["started"]) * 1000


def _run(kit: Path, arguments: argparse.Namespace, stack: ExitStack) -> dict[str, list[float]]:
    stack.enter_context(running([str(kit / "bin" / "mock"), "-p", str(MOCK_PORT)]))
    collector = f"http://127.0.0.1:{(listens := free_port())}"
    command = [sys.executable, "-m", "bench.guards", "--collector", str(listens)]
    stack.enter_context(running(command, ready=collector))
    cases = {"bare": Case(), "ledger": Case(), "guards": Case(guarded=True)}
    cases["traces"] = Case(collector=collector)
    if arguments.redis:
        cases["Redis"] = Case(guarded=True, redis=arguments.redis)
    served: dict[str, tuple[int, int]] = {}
    for name, case in cases.items():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frugal-bench-")))
        policy = policy_of(folder, case)
        port = free_port()
        start = _bare if name == "bare" else gateway
        served[name] = (port, stack.enter_context(start(policy, port)))
        _measure(kit, *served[name], 0.3)  # the first requests import and connect
    found: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(arguments.rounds):
        order = list(cases) if number % 2 == 0 else list(reversed(cases))
        for name in order:
            found[name].append(_measure(kit, *served[name], arguments.seconds))
    if not (taken := _taken(collector)):
        raise SystemExit("expected traces at the collector, found none")
    print(f"the collector took {taken / 1000:.0f} kB of traces")
    return found


def main() -> int:
    """Measure every case in turns and print a table."""
    if sys.argv[1:2] == ["--bare"]:
        serve_bare(sys.argv[2:])
        return 0
    if sys.argv[1:2] == ["--collector"]:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), _Collector).serve_forever()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, required=True, help="folder of the perf-kit")
    parser.add_argument("--redis", help="measure limits through this Redis, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.2, help="of load, a case and round")
    arguments = parser.parse_args()
    with ExitStack() as stack, built_kit(arguments.kit) as kit:
        found = _run(kit, arguments, stack)
    print(f"CPU-s per 1,000 requests, {arguments.rounds} rounds, {os.cpu_count()} cores")
    for name, spent in found.items():
        base = found[_BASE.get(name, "bare")]
        added = [one - other for one, other in zip(spent, base, strict=True)]
        print(
            f"{name:8} {statistics.median(spent):.3f} ({min(spent):.3f}-{max(spent):.3f})  "
            f"adds {statistics.median(added):+.3f}, by the least "
            f"{min(spent) - min(base):+.3f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
