"""What a hit costs the gateway, from Redis and from memory, in CPU seconds.

    python -m bench.cache_shared --prompts 3000

Two gateways share a Redis. The first answers every prompt once; the second is
then asked each of them (a hit from Redis) and each once more (a hit from its own
memory). Printed: CPU seconds per 1,000 requests of the second gateway, and of
Redis beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.cache_servers import a_redis, answer, free_port, policy
from bench.processes import KEY, gateway, tree

_TICKS = os.sysconf("SC_CLK_TCK")


async def ask(port: int, prompts: list[str], connections: int) -> dict[str, int]:
    """Ask every prompt once over so many connections; return how often the cache said what."""
    todo = iter(prompts)
    said: dict[str, int] = {}

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for prompt in todo:
            writer.write(_request(prompt))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(_value(head, b"content-length")))
            state = f"{head[9:12].decode()} {_value(head, b'x-cache').decode()}"
            said[state] = said.get(state, 0) + 1
        writer.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return said


def _request(prompt: str) -> bytes:
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}"
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants so far."""
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


async def run(count: int, connections: int) -> None:
    """Fill, then measure both kinds of hits."""
    upstream = await asyncio.start_server(partial(answer, after_s=0.0), "127.0.0.1", 0)
    prompts = [f"what is {number} of all {'words ' * 40}?" for number in range(count)]
    with ExitStack() as stack:
        redis = stack.enter_context(a_redis())
        ports, pids = (free_port(), free_port()), []
        # A busy machine is late; what is measured is no deadline.
        storage = {"redis": f"redis://127.0.0.1:{redis.port}/0", "redis_within": "1s"}
        port = upstream.sockets[0].getsockname()[1]
        text = policy(port, redis.port, workers=1, storage=storage)
        for port in ports:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = _written(folder, text)
            pids.append(await asyncio.to_thread(stack.enter_context, gateway(path, port)))
        print("filled:", await ask(ports[0], prompts, connections))
        await asyncio.sleep(1)
        for what in ("from Redis", "from memory"):
            before, of_redis, began = cpu_s(pids[1]), cpu_s(redis.pid), time.perf_counter()
            said = await ask(ports[1], prompts, connections)
            spent, beside = cpu_s(pids[1]) - before, cpu_s(redis.pid) - of_redis
            rate = count / (time.perf_counter() - began)
            print(
                f"{what}: {said}, {1000 * spent / count:.3f} CPU-s per 1,000 requests, "
                f"Redis {1000 * beside / count:.3f}, {rate:,.0f} requests/s"
            )
        upstream.close()


def _written(folder: str, text: str) -> Path:
    whole = json.loads(text)
    whole["storage"]["ledger"] = f"sqlite:///{folder}/ledger.db"
    path = Path(folder, "policy.yaml")
    path.write_text(json.dumps(whole))
    return path


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=3000, help="answers to keep")
    parser.add_argument("--connections", type=int, default=8, help="requests at once")
    asked = parser.parse_args()
    asyncio.run(run(asked.prompts, asked.connections))


if __name__ == "__main__":
    main()
