"""What breakpoints save: ours, none, and always, on traffic of several kinds, at list prices.

    python -m bench.prompt_cache

The requests go through the code that serves; the cache behind them is simulated
by Anthropic's stated rules (a prefix is read where a breakpoint, or one of the
20 blocks before it, ends a prefix that was written and has not expired). Words
are made up, sizes are in the table. The last column is the processor time that
translating a request and placing its breakpoints takes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.money.price import Price, cost
from gateway.money.price_table import listed
from gateway.money.usage import Usage
from gateway.providers.messages.breakpoints import add_breakpoints
from gateway.providers.messages.models import traits_of
from gateway.providers.messages.request import messages_request
from gateway.providers.prefixes import SECONDS, CacheRates, PrefixMemory, Ttl

MODEL = "claude-sonnet-4-5"
OUTPUT = 200
Request = tuple[float, dict[str, Any]]
Place = Callable[[dict[str, Any], float], None]


@dataclass(slots=True)
class Provider:
    """A prompt cache by Anthropic's rules."""

    least: int
    until: dict[bytes, float] = field(default_factory=dict)
    ttl: dict[bytes, Ttl] = field(default_factory=dict)

    def bill(self, asked: dict[str, Any], now: float) -> Usage:
        """Return the usage of one request, and remember what it wrote."""
        ends = list(_ends(asked))
        total = ends[-1][1]
        marked = [i for i, (_, _, mark) in enumerate(ends) if mark]
        read = 0
        for place in marked:
            for digest, tokens, _ in reversed(ends[max(0, place - 20) : place + 1]):
                if now < self.until.get(digest, -1.0) and tokens >= self.least:
                    read = max(read, tokens)
                    self.until[digest] = now + SECONDS[self.ttl[digest]]
                    break
        written: dict[Ttl, int] = {"5m": 0, "1h": 0}
        upto = read
        for place in marked:
            digest, tokens, mark = ends[place]
            ttl: Ttl = "1h" if mark and mark.get("ttl") == "1h" else "5m"
            if tokens > upto and tokens >= self.least:
                written[ttl] += tokens - upto
                upto = tokens
                self.until[digest], self.ttl[digest] = now + SECONDS[ttl], ttl
        return Usage(total - upto, read, written["5m"], OUTPUT, cache_write_1h=written["1h"])


def _ends(asked: dict[str, Any]) -> Iterator[tuple[bytes, int, dict[str, str] | None]]:
    digest, tokens = blake2b(digest_size=16), 0
    turns = [block for turn in asked["messages"] for block in turn["content"]]
    for block in [*asked.get("tools", ()), *asked.get("system", ()), *turns]:
        data = msgspec.json.encode({k: v for k, v in block.items() if k != "cache_control"})
        digest.update(data)
        tokens += len(data) // 4
        yield digest.copy().digest(), tokens, block.get("cache_control")


# Traffic


def _words(rng: random.Random, tokens: int) -> str:
    return "".join(rng.choices("abcdefgh ", k=4 * tokens))


def _chats(
    rng: random.Random, *, system: int, turns: int, gap_s: float, every_s: float
) -> list[Request]:
    rules = {"role": "system", "content": _words(rng, system)}
    made: list[Request] = []
    for talk in range(150):
        now, said = talk * every_s, [rules]
        for _ in range(1 + rng.randrange(2 * turns)):
            said = [*said, {"role": "user", "content": _words(rng, 150)}]
            made.append((now, {"model": MODEL, "messages": said}))
            said = [*said, {"role": "assistant", "content": _words(rng, OUTPUT)}]
            now += rng.expovariate(1 / gap_s)
    return sorted(made, key=lambda each: each[0])


def _documents(rng: random.Random, *, tokens: int, every_s: float) -> list[Request]:
    made: list[Request] = []
    for count in range(600):
        said = [{"role": "user", "content": _words(rng, tokens)}]
        made.append((count * every_s, {"model": MODEL, "messages": said}))
    return made


def _shared(rng: random.Random, *, system: int, every_s: float) -> list[Request]:
    rules, now = {"role": "system", "content": _words(rng, system)}, 0.0
    made: list[Request] = []
    for _ in range(600):
        said = [rules, {"role": "user", "content": _words(rng, 100)}]
        made.append((now, {"model": MODEL, "messages": said}))
        now += rng.expovariate(1 / every_s)
    return made


TRAFFIC: dict[str, Callable[[random.Random], list[Request]]] = {
    "chats, 3k system prompt": lambda r: _chats(r, system=3000, turns=6, gap_s=40, every_s=90),
    "chats, no system prompt": lambda r: _chats(r, system=10, turns=12, gap_s=40, every_s=90),
    "4k system prompt, every 30 s": lambda r: _shared(r, system=4000, every_s=30),
    "4k system prompt, every 10 min": lambda r: _shared(r, system=4000, every_s=600),
    "4k system prompt, every 2 h": lambda r: _shared(r, system=4000, every_s=7200),
    "20k documents, each once": lambda r: _documents(r, tokens=20_000, every_s=5),
}


# Ways to place breakpoints


def _none(asked: dict[str, Any], now: float) -> None:
    """Leave the request as it is."""


def _always(asked: dict[str, Any], now: float) -> None:
    for blocks in (asked.get("system"), asked["messages"][-1]["content"]):
        if blocks:
            blocks[-1]["cache_control"] = {"type": "ephemeral"}


def _ours() -> Place:
    memory = PrefixMemory(CacheRates(), least_tokens=traits_of(MODEL).least_cached)
    return lambda asked, now: add_breakpoints(asked, memory, "tenant", now)


def _dollars(requests: list[Request], place: Place, price: Price) -> tuple[Decimal, float]:
    """Return what a thousand requests cost, and the microseconds that placing takes in each."""
    provider, total, spent = Provider(traits_of(MODEL).least_cached), Decimal(0), 0.0
    for now, body in requests:
        began = time.process_time()
        asked = messages_request(body, traits_of(MODEL), None)
        place(asked, now)
        spent += time.process_time() - began
        total += cost(provider.bill(asked, now), price)
    return total * 1000 / len(requests), spent * 1e6 / len(requests)


def main() -> int:
    """Print one line a kind of traffic. Returns 1 where ours costs more than none by 2 %."""
    found = listed("anthropic", None, MODEL, datetime.now(UTC))
    assert found is not None, f"{MODEL} has no list price"
    print(f"dollars per 1,000 requests of {MODEL}\n")
    print(f"{'traffic':32} {'none':>8} {'always':>8} {'ours':>8} {'saved':>7} {'us':>6}")
    is_worse = False
    for name, make in TRAFFIC.items():
        requests = make(random.Random(1))
        none, _ = _dollars(requests, _none, found.price)
        always, _ = _dollars(requests, _always, found.price)
        ours, micros = _dollars(requests, _ours(), found.price)
        is_worse = is_worse or ours > none * Decimal("1.02")
        saved = 1 - ours / none
        print(f"{name:32} {none:8.2f} {always:8.2f} {ours:8.2f} {saved:7.1%} {micros:6.0f}")
    return int(is_worse)


if __name__ == "__main__":
    raise SystemExit(main())
