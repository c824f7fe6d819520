"""A brown-out of one of two deployments: what the clients still get, and what it costs upstream.

    python -m bench.brownout --rate 50 --seconds 20
    python -m bench.brownout --rate 10 --healthy 0.25 --seconds 60    # on a busy machine

One of two deployments fails 30 % of its calls and takes ten times as long for
all of them. Requests come at a steady rate, whether answered or not. A good
answer is whole and begins within five times the healthy latency. Each line is
a policy: with nothing, with retries, and with all that the policy can name.
`healthy` is how many answers were good just before: well below 100 %, the machine
was too busy, and the line says nothing of the policy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.processes import KEY, free_port, gateway

_SLOWDOWN = 10
_FAILURES = 0.3
_GOOD = 5
"""Of the healthy latency."""
_HEDGE_AFTER = 3
_WARM_S = 3.0
_RETRIES = {"attempts": 2, "budget": 0.1, "per_second": 1}
_POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "by weight alone": ("weight", {}),
    "by weight, with retries": ("weight", {"retries": _RETRIES}),
    "by latency": ("latency", {}),
    "by latency, with all": (
        "latency",
        {
            "retries": _RETRIES,
            "breaker": {"failures": 0.5},
            "hedge": {"budget": 0.05},
        },
    ),
}
_WORDS = ("The", " answer", " is", " 12")


@dataclass
class Deployment:
    """An upstream that can be made ill; counts what it was asked."""

    dice: random.Random
    healthy_s: float
    is_ill: bool = False
    calls: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while body := await _request(reader):
                await self._answer(writer, stream=bool(body.get("stream")))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway has left, or the measurement is over
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        self.calls += 1
        await asyncio.sleep(self.healthy_s * (_SLOWDOWN if self.is_ill else 1))
        if self.is_ill and self.dice.random() < _FAILURES:
            writer.write(b"HTTP/1.1 500 Ill\r\ncontent-length: 2\r\n\r\n{}")
        elif stream:
            writer.write(_STREAM)
        else:
            writer.write(_WHOLE)
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return the next request's body; None once the connection is over."""
    length = 0
    while (line := await reader.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
    if not line:
        return None
    found: dict[str, Any] = json.loads(await reader.readexactly(length))
    return found


def _reply() -> tuple[bytes, bytes]:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    head = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "m"}
    message = {"role": "assistant", "content": "".join(_WORDS)}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": word}, "finish_reason": None} for word in _WORDS
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunk = {**head, "object": "chat.completion.chunk"}
    events: list[dict[str, Any]] = [{**chunk, "choices": [choice]} for choice in choices]
    events.append({**chunk, "choices": [], "usage": usage})
    told = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return (
        _http("application/json", json.dumps(whole).encode()),
        _http("text/event-stream", told.encode()),
    )


def _http(kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_WHOLE, _STREAM = _reply()


@dataclass
class Seen:
    """What the clients got."""

    good_s: float
    sent: int = 0
    whole: int = 0
    good: int = 0
    firsts: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def line(self, calls: int) -> str:
        """Return one row of the table."""
        firsts = sorted(self.firsts) or [0.0]
        p50, p99 = (firsts[int(len(firsts) * share)] for share in (0.5, 0.99))
        return (
            f"whole {self.whole / self.sent:6.1%}  good {self.good / self.sent:6.1%}  "
            f"attempts {calls / self.sent:.3f}  first p50 {p50 * 1000:4.0f} ms  "
            f"p99 {p99 * 1000:4.0f} ms  errors {self.sent - self.whole}"
        )


async def _ask(client: httpx.AsyncClient, number: int, seen: Seen) -> None:
    loop = asyncio.get_running_loop()
    began, first, text = loop.time(), None, ""
    body = {
        "model": "auto",
        "stream": number % 2 == 0,
        "messages": [{"role": "user", "content": f"Question {number}"}],
    }
    seen.sent += 1
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for piece in response.aiter_text():
                first = first or loop.time() - began
                text += piece
    except httpx.HTTPError:
        return  # an answer that did not come
    seen.statuses[response.status_code] += 1
    if response.status_code == 200 and '"error"' not in text and first is not None:
        seen.whole += 1
        seen.good += first <= seen.good_s
        seen.firsts.append(first)


async def _load(port: int, rate: float, seconds: float, seen: Seen, start: int) -> Seen:
    """Send requests at a steady rate and wait for the last of them."""
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=30,
            limits=limits,
            trust_env=False,
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        began = loop.time()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(began + number / rate - loop.time())
            group.create_task(_ask(client, start + number, seen))
    return seen


@asynccontextmanager
async def _deployments(
    seed: int, healthy_s: float
) -> AsyncIterator[tuple[list[Deployment], list[str]]]:
    """Yield two upstreams and their addresses."""
    both = [Deployment(random.Random(seed + at), healthy_s) for at in range(2)]
    async with AsyncExitStack() as stack:
        urls = []
        for deployment in both:
            server = await asyncio.start_server(deployment.serve, "127.0.0.1", 0, backlog=1024)
            await stack.enter_async_context(server)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        yield both, urls


def _policy(urls: list[str], balance: str, route: dict[str, Any], folder: Path) -> str:
    model = {
        "provider": "openai",
        "price": {"input_per_mtok_usd": 1, "output_per_mtok_usd": 2},
        "deployments": [{"base_url": url} for url in urls],
        "balance": balance,
    }
    return json.dumps(
        {
            "version": 1,
            "access": {"keys": [{"name": "bench", "tenant": "bench", "key": KEY}]},
            "models": {"large": model},
            "routes": {"auto": {"model": "large", **route}},
            "storage": {"ledger": f"sqlite:///{folder / 'ledger.db'}"},
        }
    )


async def _measure(name: str, arguments: argparse.Namespace) -> None:
    balance, route = _POLICIES[name]
    healthy_s = arguments.healthy
    if "hedge" in route:
        after = f"{_HEDGE_AFTER * healthy_s * 1000:g}ms"
        route = route | {"hedge": {**route["hedge"], "after": after}}

    async def some(seconds: float, start: int) -> Seen:
        return await _load(port, arguments.rate, seconds, Seen(_GOOD * healthy_s), start)

    with tempfile.TemporaryDirectory(prefix="frugal-bench-") as folder:
        async with _deployments(arguments.seed, healthy_s) as (both, urls):
            path = Path(folder) / "policy.yaml"
            path.write_text(_policy(urls, balance, route, Path(folder)))
            port = arguments.port or free_port()
            served = gateway(path, port)
            await asyncio.to_thread(served.__enter__)
            try:
                # The first requests import and connect; those after them tell what health is.
                await some(_WARM_S, 0)
                before = await some(_WARM_S, 500_000)
                both[0].is_ill = True
                asked = sum(each.calls for each in both)
                seen = await some(arguments.seconds, 1_000_000)
                calls = sum(each.calls for each in both) - asked
            finally:
                await asyncio.to_thread(served.__exit__, None, None, None)
    healthy = before.good / before.sent
    print(f"{name:24}  {seen.line(calls)}  healthy {healthy:6.1%}", flush=True)


def main() -> int:
    """Measure every policy and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--healthy", type=float, default=0.05, help="latency in seconds")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        f"{arguments.rate:g} requests/s for {arguments.seconds:g} s, half of them streams; healthy "
        f"{arguments.healthy * 1000:g} ms; one of two: {_FAILURES:.0%} errors, {_SLOWDOWN}x latency"
    )
    for name in _POLICIES:
        asyncio.run(_measure(name, arguments))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
