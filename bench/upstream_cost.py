"""What a call to an upstream costs this process, in CPU time.

    python -m bench.upstream_cost [--seconds 1.5] [--tasks 16]

A server in a process of its own gives canned answers over loopback. Rows: the
pool alone (`request` and `read`, 1 KB each way), a whole call through the
provider, and one event of a stream through the provider, both when each event
comes alone and when they come as fast as they can. CPU is this process's only,
by `time.process_time`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

import uvloop

from gateway.providers.openai import OpenAIProvider
from gateway.upstream.pool import Pool
from gateway.upstream.types import Deadlines, Origin
from gateway.wire import ProviderCall
from policies.schema import Model, Timeouts

EVENTS = 50
_LIMITS = Deadlines(5, 60, 60, 600)
_BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 900}]}


def _whole() -> bytes:
    message = {"role": "assistant", "content": "y" * 700}
    usage = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nserver: canned\r\n"
    return b"HTTP/1.1 200 OK\r\n" + head.encode() + b"date: now\r\n\r\n" + body


def _events() -> list[bytes]:
    def event(**members: object) -> bytes:
        base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return b"data: " + json.dumps({**base, **members}).encode() + b"\n\n"

    def choice(delta: dict[str, str], finish: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    usage = {"prompt_tokens": 200, "completion_tokens": EVENTS, "total_tokens": 200 + EVENTS}
    return [
        *(event(choices=choice({"content": " word"})) for _ in range(EVENTS)),
        event(choices=choice({}, "stop")),
        event(choices=[], usage=usage),
        b"data: [DONE]\n\n",
    ]


class _Canned(asyncio.Protocol):
    """Answers each request by its path: /whole, /burst, /drip."""

    def __init__(self) -> None:
        whole = _whole()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        chunks = [b"%x\r\n%s\r\n" % (len(e), e) for e in _events()] + [b"0\r\n\r\n"]
        chunks.insert(0, head + b"transfer-encoding: chunked\r\n\r\n")
        self._whole, self._chunks = whole, chunks
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._rest = b""
        if b"/burst/" in head:
            self._transport.write(b"".join(self._chunks))
        elif b"/drip/" in head:
            self._drip(0)
        else:
            self._transport.write(self._whole)

    def _drip(self, at: int) -> None:
        if at < len(self._chunks) and not self._transport.is_closing():
            self._transport.write(self._chunks[at])
            asyncio.get_running_loop().call_later(0.002, self._drip, at + 1)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the parent has gone


async def _cost(work: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> float:
    """Return the CPU seconds of one piece of work, at so many tasks at once."""
    end, count = 0.0, 0

    async def loop() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await work()
            count += 1

    await work()
    end = time.perf_counter() + seconds
    before = time.process_time()
    await asyncio.gather(*(loop() for _ in range(tasks)))
    return (time.process_time() - before) / count


async def _measure(port: int, tasks: int, seconds: float) -> dict[str, float]:
    url = f"http://127.0.0.1:{port}"
    pool = Pool(Origin.of_url(url))
    body = json.dumps(_BODY).encode()
    headers = (("authorization", "Bearer sk-1"), ("x-request-id", "r" * 32))

    async def plain() -> None:
        await (await pool.request("/whole/", headers, body, _LIMITS)).read()

    def through(kind: str) -> tuple[OpenAIProvider, Callable[[], Awaitable[None]]]:
        model = Model.model_validate(
            {"provider": "openai", "base_url": f"{url}/{kind}", "api_key": "sk-1"}
        )
        provider = OpenAIProvider.from_model("m", model)
        call = ProviderCall(
            {**_BODY, "stream": kind != "whole"}, kind != "whole", False, Timeouts(), "r" * 32
        )

        async def work() -> None:
            async for _ in provider.call(call):
                pass

        return provider, work

    rows = {"pool: request + read": await _cost(plain, tasks, seconds)}
    await pool.aclose()
    for kind, share in (("whole", 1), ("burst", EVENTS + 2), ("drip", EVENTS + 2)):
        provider, work = through(kind)
        rows[f"provider: {kind}, each {'call' if share == 1 else 'event'}"] = (
            await _cost(work, tasks, seconds) / share
        )
        await provider.aclose()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="for each row")
    parser.add_argument("--tasks", type=int, default=16, help="calls at once")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        uvloop.run(_serve())
        return
    command = [sys.executable, "-m", "bench.upstream_cost", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        rows = uvloop.run(_measure(int(server.stdout.readline()), args.tasks, args.seconds))
        server.stdin.close()
    if args.json:
        print(json.dumps(rows))
        return
    for name, cost in rows.items():
        print(f"{name:32} {cost * 1e6:8.1f} µs CPU")


if __name__ == "__main__":
    main()
