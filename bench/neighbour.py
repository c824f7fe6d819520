"""What a busy local engine does to everybody else: the proxy's p99, idle and beside full decoding.

    python -m bench.neighbour --kit ../perf-kit --seconds 20

One gateway, one local model on a core of its own, one remote model (the kit's
mock). 100 requests a second go to the remote one, first with the engine idle,
then with its batch full.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx

from bench.processes import KEY, built_kit, gateway, load, running

_POLICY = """
version: 1
access:
  keys:
    - {{name: bench, tenant: bench, key: {key}}}
models:
  gpt-4o-mini:
    provider: openai
    base_url: http://127.0.0.1:{mock_port}/v1
    api_key: sk-upstream
    price: {{input_per_mtok_usd: 0.15, output_per_mtok_usd: 0.60}}
  tiny:
    provider: local
    checkpoint: demo/tiny
    max_batch: {batch}
    price: {{machine_hour_usd: 0.40}}
storage:
  ledger: sqlite:///{ledger}
"""


class _Decoding(threading.Thread):
    """Keeps the engine's batch full until told to stop; counts the tokens it got."""

    def __init__(self, port: int, batch: int) -> None:
        super().__init__(daemon=True)
        self.tokens = 0
        self._port = port
        self._batch = batch
        self._stop_now = threading.Event()

    def run(self) -> None:
        """Decode until stopped."""
        asyncio.run(self._all())

    def stop(self) -> None:
        """End after the requests under way."""
        self._stop_now.set()
        self.join()

    async def _all(self) -> None:
        url = f"http://127.0.0.1:{self._port}"
        async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            await asyncio.gather(*(self._one(client, seat) for seat in range(self._batch)))

    async def _one(self, client: httpx.AsyncClient, seat: int) -> None:
        turn = 0
        while not self._stop_now.is_set():
            turn += 1
            body = {
                "model": "tiny",
                "max_tokens": 300,
                "temperature": 2,
                "seed": 1000 * seat + turn,
                "messages": [{"role": "user", "content": f"Count {turn}"}],
            }
            headers = {"authorization": f"Bearer {KEY}"}
            reply = await client.post("/v1/chat/completions", content=json.dumps(body),
                                      headers=headers)  # fmt: skip
            reply.raise_for_status()
            self.tokens += reply.json()["usage"]["completion_tokens"]


def main() -> int:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, required=True, help="folder of the perf-kit")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8220)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frugal-bench-") as name:
        policy = Path(name) / "policy.yaml"
        policy.write_text(
            _POLICY.format(key=KEY, mock_port=9012, batch=arguments.batch,
                           ledger=Path(name) / "ledger.db")
        )  # fmt: skip
        with (
            built_kit(arguments.kit) as kit,
            running([str(kit / "bin" / "mock"), "-p", "9012"]),
            gateway(policy, arguments.port),
        ):
            for round_number in range(arguments.rounds):
                _report(round_number, *_round(kit, arguments))
    return 0


def _round(kit: Path, arguments: argparse.Namespace) -> tuple[Any, Any, float]:
    options = {"c": 64, "r": 100, "d": arguments.seconds, "w": 1}
    idle = load(kit, arguments.port, "chat_1k", options)
    decoding = _Decoding(arguments.port, arguments.batch)
    decoding.start()
    busy = load(kit, arguments.port, "chat_1k", options)
    decoding.stop()
    return idle, busy, decoding.tokens / (arguments.seconds + 1)


def _report(number: int, idle: Any, busy: Any, tokens_per_s: float) -> None:
    added = (busy["lat_p99"] - idle["lat_p99"]) / 1000
    print(
        f"round {number + 1}: p50 {idle['lat_p50'] / 1000:.2f} -> {busy['lat_p50'] / 1000:.2f} ms, "
        f"p99 {idle['lat_p99'] / 1000:.2f} -> {busy['lat_p99'] / 1000:.2f} ms "
        f"(added {added:+.2f}), {tokens_per_s:.0f} tokens/s beside, "
        f"{os.cpu_count()} cores, bad {busy['non200'] + busy['errs']}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
