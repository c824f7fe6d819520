"""One dollar, two gateways, two hundred requests at once: what is answered, billed and recorded.

python -m bench.budgets --redis redis://127.0.0.1:6379/0
python -m bench.budgets --postgres postgresql://user@host/database

With a Redis each process has a ledger of its own in SQLite and the budget is in
Redis; with PostgreSQL budget and ledger are there. The upstream is one of ours,
which reports and counts a cent an answer. Ends with 1 where a dollar was passed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.processes import free_port, gateway

CENTS = 100
"""What the budget holds; each answer costs one."""
AT_ONCE = 200
_TOKENS = 1000
_USAGE = {"prompt_tokens": 10, "completion_tokens": _TOKENS, "total_tokens": _TOKENS + 10}


@dataclass(slots=True)
class Upstream:
    """A provider that answers everything after a moment, and counts what it will bill."""

    url: str = ""
    answered: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                 "choices": [{**choice, "finish_reason": "stop"}], "usage": _USAGE}  # fmt: skip
        body = json.dumps(whole).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        try:
            while True:
                told = await reader.readuntil(b"\r\n\r\n")
                sizes = [line for line in told.lower().split(b"\r\n") if b"content-length" in line]
                await reader.readexactly(int(sizes[0].partition(b":")[2]))
                self.answered += 1
                await asyncio.sleep(0.05)
                writer.write(head % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()  # its client has left, or we are about to


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Run the provider on loopback."""
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()


def _policy(folder: Path, url: str, told: argparse.Namespace, name: str) -> Path:
    """Write the policy of one of the gateways."""
    price = {"input_per_mtok_usd": 0, "output_per_mtok_usd": 10}
    storage = {"ledger": f"sqlite:///{folder}/ledger.db", "redis": told.redis}
    if told.postgres:
        spool = {"file": f"{folder}/spool.db"}
        storage = {"ledger": told.postgres, "limits": told.postgres, "spool": spool}
    # A tenant of its own, so that a dollar spent in an earlier run is none of this one's.
    limits = {"tenants": {name: {"budget": {"usd": 1, "per": "total"}}}}
    whole: dict[str, Any] = {
        "version": 1,
        "models": {"m": {"provider": "openai", "base_url": url, "price": price}},
        "access": {"keys": [{"name": name, "tenant": name, "key": f"sk-{name}-0123456789"}]},
        "limits": limits,
        "storage": storage,
    }
    path = folder / "policy.yaml"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


@contextmanager
def _gateways(url: str, told: argparse.Namespace, name: str) -> Iterator[list[str]]:
    """Run two gateways on one budget; yield their addresses."""
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frugal-budget-")))
            port = free_port()
            stack.enter_context(gateway(_policy(folder, url, told, name), port))
            found.append(f"http://127.0.0.1:{port}")
        yield found


async def _ask(urls: Sequence[str], name: str, count: int) -> Counter[int]:
    """Send so many requests at once, to each gateway in turn; return how they were answered."""
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer sk-{name}-0123456789"}
    async with httpx.AsyncClient(
        headers=headers, limits=limits, timeout=120, trust_env=False
    ) as client:

        async def one(number: int) -> int:
            said = [{"role": "user", "content": f"{name} {number}"}]
            body = {"model": "m", "max_tokens": _TOKENS, "messages": said}
            url = f"{urls[number % len(urls)]}/v1/chat/completions"
            return (await client.post(url, json=body)).status_code

        return Counter(await asyncio.gather(*(one(number) for number in range(count))))


async def _until_spent(urls: Sequence[str], name: str, answers: Counter[int]) -> int:
    """Ask, one after the other, until the budget is said to be gone; return how often that took.

    Whoever was told 503 meanwhile, since Redis or PostgreSQL was late, comes again.
    """
    for tries in range(1, 20 * CENTS):
        (status,) = await _ask(urls[tries % 2 :], f"{name}", 1)
        answers[status] += 1
        if status == 429:
            return tries
        await asyncio.sleep(0.0 if status == 200 else 0.05)
    return tries


async def _run(told: argparse.Namespace) -> bool:
    name = f"t{secrets.token_hex(4)}"
    async with upstream() as provider:
        with _gateways(provider.url, told, name) as urls:
            answers = await _ask(urls, name, told.requests)
            at_once = dict(sorted(answers.items()))
            tries = await _until_spent(urls, name, answers)
    where = "PostgreSQL" if told.postgres else "SQLite and Redis"
    print(f"{where}: {told.requests} requests at once, two processes, {CENTS} cents: {at_once}")
    print(f"then {tries} one by one until refused; billed in all: {provider.answered} cents")
    return provider.answered <= CENTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what became of a dollar; return 1 where more than that was spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--redis", help="budgets in this Redis, ledgers in SQLite")
    where.add_argument("--postgres", help="budgets and the ledger in this PostgreSQL")
    parser.add_argument("--requests", type=int, default=AT_ONCE)
    return 0 if asyncio.run(_run(parser.parse_args(arguments))) else 1


if __name__ == "__main__":
    sys.exit(main())
