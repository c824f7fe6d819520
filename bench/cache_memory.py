"""What the semantic cache costs in memory as workers are added.

    python -m bench.cache_memory                    # 1 and 4 workers, with and without the cache

Each gateway answers a few questions first, so that models and indexes are loaded.
Memory is the proportional share: a page that several processes map is split among them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processes import gateway, tree

_ASKED = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--port", type=int, default=4160)
    asked = parser.parse_args(argv)
    table = Table(title="memory of all gateway processes, MB")
    for name in ("workers", "semantic cache", "in all", "the largest processes"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for workers in asked.workers:
            for has_cache in (False, True):
                held = _held(Path(folder), workers, has_cache, asked.port)
                most = " ".join(f"{each:.0f}" for each in sorted(held, reverse=True)[:6])
                table.add_row(str(workers), "yes" if has_cache else "no", f"{sum(held):.0f}", most)
    Console().print(table)
    return 0


def _held(folder: Path, workers: int, has_cache: bool, port: int) -> list[float]:
    """Return the megabytes of each process of a gateway that has answered."""
    place = folder / f"{workers}-{has_cache}"
    place.mkdir()
    with _upstream() as url:
        policy = place / "policy.json"
        policy.write_text(json.dumps(_policy(url, workers, has_cache, place)))
        with gateway(policy, port) as pid:
            for number in range(_ASKED):
                _ask(port, f"How do I reset the password of my account number {number}?")
            time.sleep(1)
            return [_share_mb(each) for each in tree(pid)]


def _policy(url: str, workers: int, has_cache: bool, place: Path) -> dict[str, Any]:
    cache = {"semantic": {"max_error": 0.01, "audit": 0}} if has_cache else {}
    model = {"provider": "openai", "base_url": url, "model": "m", "price": "unknown_is_free"}
    return {
        "version": 1,
        "server": {"workers": workers},
        "access": {"anonymous": "loopback"},
        "storage": {"ledger": f"sqlite:///{place}/ledger.db"},
        "models": {"m": model},
        "routes": {"auto": {"model": "m", "cache": cache}},
    }


def _ask(port: int, question: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": question}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "connection": "close"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        answer.read()


def _share_mb(pid: int) -> float:
    """Return a process's proportional share of memory in megabytes."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


_SERVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "Press reset."},
                  "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m",
                           "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextmanager
def _upstream() -> Iterator[str]:
    """Run a model that always says the same; yield its address."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None, "it tells its port"
            yield f"http://127.0.0.1:{int(made.stdout.readline())}/v1"
        finally:
            made.terminate()


if __name__ == "__main__":
    sys.exit(main())
