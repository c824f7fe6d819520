"""A thousand streams at once through one worker: do all arrive whole, and in how much memory?

    python -m bench.streams --kit ../perf-kit --streams 1000

Each stream is 53 events with pauses between them, so all are open together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import tempfile
import time
from pathlib import Path

from bench.gateway import write_policy
from bench.processes import KEY, built_kit, gateway, resident_mb, running


async def _stream(port: int, number: int, opened: asyncio.Semaphore) -> bool:
    """Return whether one stream arrived whole: its finish, its usage and its end."""
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": f"gap5ms {number:012d}"}],
        }
    ).encode()
    async with opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
    answer = await reader.read(-1)
    writer.close()
    return b'"finish_reason":"stop"' in answer and b'"usage":{' in answer and b"[DONE]" in answer


async def _all(port: int, pid: int, count: int) -> tuple[int, float, float]:
    opened = asyncio.Semaphore(64)  # how many connect at once; all stay open
    started = time.perf_counter()
    tasks = [asyncio.create_task(_stream(port, number, opened)) for number in range(count)]
    peak = 0.0
    while not all(task.done() for task in tasks):
        peak = max(peak, resident_mb(pid))
        await asyncio.sleep(0.05)
    whole = sum(await asyncio.gather(*tasks))
    return whole, peak, time.perf_counter() - started


def main() -> int:
    """Run the streams and print one line. Returns 1 when any was not whole."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, required=True, help="folder of the perf-kit")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--port", type=int, default=8210)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with (
        tempfile.TemporaryDirectory(prefix="frugal-bench-") as name,
        built_kit(arguments.kit) as kit,
        running([str(kit / "bin" / "mock"), "-p", "9011", "-g", "100"]),
        gateway(write_policy(Path(name), mock_port=9011), arguments.port) as pid,
    ):
        idle = resident_mb(pid)
        whole, peak, took = asyncio.run(_all(arguments.port, pid, arguments.streams))
    print(
        f"{whole} of {arguments.streams} streams whole in {took:.1f} s; "
        f"gateway {idle:.0f} MB before, {peak:.0f} MB at most"
    )
    return 0 if whole == arguments.streams else 1


if __name__ == "__main__":
    raise SystemExit(main())
