"""Kill the gateway with SIGKILL under load, again and again, and compare its ledger with the bill.

    python -m bench.kill --rounds 20 --seed 7
    python -m bench.kill --rounds 20 --workers 2

A loopback provider keeps its own bill: reported or not, finished or cut off, it
charges for the prompt and for every token it had made by then. Clients keep
what was acknowledged to them: whole answers read to their last byte. A third of
the requests are drafted by a small model and escalated, half are streamed, and
some stall, so that every kill cuts some off. After the last round the gateway
starts once more; then every acknowledged request must be in the ledger, every
call that the provider charged must be a line of it, to the token where usage
was reported, and within its bounds where not. Exit status 1 when any is not.
With several workers each kill takes one of them, and the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.processes import frugal_command, wait_until_ready

CLIENTS = 16
MAX_TOKENS = 120
PRICES = {"small": (100, 400), "large": (2_500, 10_000)}
"""Nano-dollars per token of prompt and answer."""
Row = dict[str, Any]


@dataclass(slots=True)
class Call:
    """One call as the provider charges it."""

    tag: str
    model: str
    tokens_in: int
    tokens_out: int = 0
    was_told: bool = False

    @property
    def nano_usd(self) -> int:
        """Return what it is charged."""
        a_token_in, a_token_out = PRICES[self.model]
        return self.tokens_in * a_token_in + self.tokens_out * a_token_out


class Provider:
    """An OpenAI-compatible server that knows what it has charged."""

    def __init__(self, chance: random.Random) -> None:
        self.calls: list[Call] = []
        self._chance = chance

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until its client is gone, or the bench is over."""
        ends = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ends):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await self._answer(json.loads(await reader.readexactly(length)), writer)
        writer.close()

    async def _answer(self, asked: Row, writer: asyncio.StreamWriter) -> None:
        chance = self._chance
        prompt: str = asked["messages"][0]["content"]
        call = Call(prompt.split()[0], asked["model"], len(prompt.split()) + chance.randrange(40))
        self.calls.append(call)
        wanted, is_stream = chance.randrange(1, MAX_TOKENS), asked["stream"]
        tells, stalls = chance.random() < 0.8, chance.random() < 0.05
        if is_stream:
            writer.write(_STREAM)
        for number in range(wanted):
            call.tokens_out += 1
            if is_stream:
                writer.write(_chunk(_event({"content": f"w{number} "})))
            if number % 16 == 0:
                await asyncio.sleep(30 if stalls and number else chance.random() * 0.01)
                await _drain(writer)
        usage = {"prompt_tokens": call.tokens_in, "completion_tokens": call.tokens_out}
        call.was_told = tells
        if is_stream:
            writer.write(_chunk(_event({}, "stop")))
            if tells:
                told = {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage}
                writer.write(_chunk(b"data: " + json.dumps(told).encode() + b"\n\n"))
            writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        else:
            writer.write(_whole(asked, call, usage if tells else None))
        await writer.drain()


async def _drain(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        raise ConnectionResetError
    await writer.drain()


_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(delta: Row, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _whole(asked: Row, call: Call, usage: Row | None) -> bytes:
    text = " ".join(f"w{number}" for number in range(call.tokens_out))
    choice: Row = {"index": 0, "message": {"role": "assistant", "content": text}}
    choice["finish_reason"] = "stop"
    if asked.get("logprobs"):
        unsure = [{"token": "w", "logprob": -3.0, "top_logprobs": []}]
        choice["logprobs"] = {"content": unsure}
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
    data = json.dumps(body | ({"usage": usage} if usage else {})).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


@dataclass(slots=True)
class Load:
    """Clients that ask without end, and what was acknowledged to them."""

    url: str
    chance: random.Random
    acknowledged: set[str] = field(default_factory=set)
    asked: int = 0

    async def run(self) -> None:
        """Ask until cancelled."""
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=self.url, timeout=20, limits=limits) as client:
            await asyncio.gather(*(self._one(client) for _ in range(CLIENTS)))

    async def _one(self, client: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.TransportError):  # the gateway is gone
            while True:
                await self._ask(client)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        self.asked += 1
        tag, chance = f"q{self.asked}", self.chance
        body = {
            "model": chance.choice(["auto", "large", "large"]),
            "stream": chance.random() < 0.5,
            "max_tokens": MAX_TOKENS,
            "messages": [{"role": "user", "content": f"{tag} {'word ' * chance.randrange(60)}"}],
            "frugal": {"tags": [tag]},
        }
        answer = await client.post("/v1/chat/completions", json=body)
        is_whole = not body["stream"] or answer.text.endswith("data: [DONE]\n\n")
        if answer.status_code == 200 and is_whole:
            self.acknowledged.add(answer.headers["x-request-id"])


def policy_of(port: int) -> str:
    """Return a policy of two models, and a route that drafts with one and escalates."""

    def model(name: str) -> Row:
        given, made = PRICES[name]
        price = {"input_per_mtok_usd": given / 1000, "output_per_mtok_usd": made / 1000}
        url = f"http://127.0.0.1:{port}/v1"
        return {"provider": "openai", "base_url": url, "price": price, "logprobs": True}

    confidence = {"kind": "logprob", "threshold": 0.8}
    cascade = {"tiers": ["small", "large"], "confidence": confidence}
    return json.dumps(
        {
            "version": 1,
            "access": {"anonymous": "loopback"},
            "models": {name: model(name) for name in PRICES},
            "routes": {"auto": {"cascade": cascade}},
        }
    )


class Gateway:
    """`frugal serve`, to be started and killed."""

    def __init__(self, policy: Path, ledger: Path, port: int, workers: int) -> None:
        self._command = frugal_command(policy, port, "--ledger", f"sqlite:///{ledger}")
        self._command += ["--workers", str(workers)]
        self.url = f"http://127.0.0.1:{port}"
        self._log = ledger.with_name("serve.log")
        self._is_many = workers > 1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it where it does not run; return the seconds until it took requests."""
        began = time.perf_counter()
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until_ready(f"{self.url}/health/ready", self._process)
        return time.perf_counter() - began

    def kill(self, chance: random.Random) -> None:
        """Kill it, or one of its workers, as the system does when memory runs out."""
        assert self._process is not None, "only what was started is killed"
        if self._is_many:
            os.kill(chance.choice(_children(self._process.pid)), signal.SIGKILL)
            return
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Stop it in an orderly way."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(slots=True)
class Finding:
    """What the comparison found; every count but the first four should be 0."""

    acknowledged: int
    settled: int
    interrupted: int
    charged: int
    lost: int = 0
    unlisted: int = 0
    differing: int = 0
    outside: int = 0
    twice: int = 0
    open_files: int = 0
    bill_nano_usd: int = 0
    told_bill: int = 0
    told_ledger: int = 0
    lower: int = 0
    upper: int = 0

    @property
    def is_sound(self) -> bool:
        """Return whether nothing is wrong."""
        wrong = (self.lost, self.unlisted, self.differing, self.outside, self.twice)
        return not any(wrong) and not self.open_files and self.told_bill == self.told_ledger


def compare(ledger: Path, acknowledged: set[str], calls: Sequence[Call]) -> Finding:
    """Hold the ledger against what clients got and the provider charged."""
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        states = {r["request_id"]: r["state"] for r in connection.execute("SELECT * FROM entry")}
        lines = connection.execute(
            "SELECT attempt.*, json_extract(tags, '$[0]') AS tag FROM attempt "
            "JOIN entry USING (request_id)"
        ).fetchall()
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    settled = {name for name, state in states.items() if state == "settled"}
    found = Finding(
        acknowledged=len(acknowledged),
        settled=len(settled),
        interrupted=sum(line["outcome"] == "interrupted" for line in lines),
        charged=len(calls),
        lost=len(acknowledged - settled),
        open_files=len(list(ledger.with_name(f"{ledger.name}-intents").glob("*"))),
    )
    by_call: dict[tuple[str, str], list[sqlite3.Row]] = {}
    for line in lines:
        by_call.setdefault((line["tag"], line["model"]), []).append(line)
    for call in calls:
        lines = by_call.get((call.tag, call.model), [])
        _hold_against(call, lines, found)
        for line in lines:
            # What was told and acknowledged is no estimate.
            is_acknowledged = line["request_id"] in acknowledged
            found.differing += is_acknowledged and call.was_told and line["estimated"]
    return found


def _hold_against(call: Call, lines: Sequence[sqlite3.Row], found: Finding) -> None:
    found.bill_nano_usd += call.nano_usd
    found.unlisted += not lines
    found.twice += len(lines) > 1
    for line in lines[:1]:
        if not line["estimated"]:
            found.told_bill += call.nano_usd
            found.told_ledger += line["cost_nano_usd"]
            found.differing += (line["input"], line["output"]) != (call.tokens_in, call.tokens_out)
        found.outside += not line["lower_nano_usd"] <= call.nano_usd <= line["upper_nano_usd"]
        found.lower += line["lower_nano_usd"]
        found.upper += line["upper_nano_usd"]


async def rounds(folder: Path, count: int, seed: int, port: int, workers: int) -> Finding:
    """Run all rounds and return what came of them."""
    chance = random.Random(seed)
    provider = Provider(random.Random(seed + 1))
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    ledger, policy = folder / "ledger.db", folder / "policy.yaml"
    policy.write_text(policy_of(server.sockets[0].getsockname()[1]))
    gateway = Gateway(policy, ledger, port, workers)
    load = Load(gateway.url, chance)
    starts: list[float] = []
    for number in range(count):
        starts.append(await asyncio.to_thread(gateway.start))
        clients = asyncio.create_task(load.run())
        await asyncio.sleep(0.3 + chance.random())
        await asyncio.to_thread(gateway.kill, chance)
        await asyncio.wait((clients,), timeout=0.5 if workers > 1 else 30)
        clients.cancel()
        await asyncio.wait((clients,))
        print(f"round {number + 1}: {load.asked} asked, {len(load.acknowledged)} acknowledged")
    await asyncio.to_thread(gateway.stop)
    starts.append(await asyncio.to_thread(gateway.start))
    await asyncio.to_thread(gateway.stop)
    server.close()
    starts.sort()
    print(f"starts: {starts[len(starts) // 2]:.2f} s at the median, {starts[-1]:.2f} s at most")
    return compare(ledger, load.acknowledged, provider.calls)


def show(found: Finding) -> None:
    """Print the comparison."""
    print(
        f"\n{found.acknowledged} acknowledged, {found.settled} settled entries, "
        f"{found.charged} calls charged, {found.interrupted} of them cut off by a kill\n"
        f"acknowledged minus ledger: {found.lost}\n"
        f"calls charged without a line: {found.unlisted}; with more than one: {found.twice}\n"
        f"lines that differ from reported usage: {found.differing} "
        f"(bill {found.told_bill}, ledger {found.told_ledger} nano-dollars)\n"
        f"calls charged outside their bounds: {found.outside} "
        f"(in all {found.lower} <= {found.bill_nano_usd} <= {found.upper})\n"
        f"files of intents left after a clean stop: {found.open_files}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print. Returns 0 when the ledger is sound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--port", type=int, default=8300)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args(arguments)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # clients of what was killed complain
    print(f"seed {asked.seed}, {asked.rounds} rounds, {asked.workers} worker(s)")
    with tempfile.TemporaryDirectory(prefix="frugal-kill-") as name:
        job = rounds(Path(name), asked.rounds, asked.seed, asked.port, asked.workers)
        found = asyncio.run(job)
    show(found)
    return 0 if found.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
