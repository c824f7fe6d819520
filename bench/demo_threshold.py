"""Which threshold the demo policy should carry: accuracy and cost of the cascade at each.

    python -m bench.demo_threshold --questions 400 --seed 1

Both shipped models answer the same held-out questions, those that `frugal demo`
asks by default left out; every threshold is then read off those answers.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
from rich.console import Console
from rich.table import Table

from bench.processes import running
from gateway.cli.main import DEMO_QUESTIONS, DEMO_SEED
from local_engine.demo.question import Question
from local_engine.demo.tasks import held_out, is_right

_HOUR_USD, _INPUT_USD, _OUTPUT_USD = 0.40, 0.30e-6, 1.20e-6


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models' answers to one question: right or not, trust in the small one, dollars."""

    small_is_right: bool
    trust: float
    small_usd: float
    large_is_right: bool
    large_usd: float


async def _answer(
    client: httpx.AsyncClient, question: Question
) -> tuple[bool, float, float, float]:
    """Return whether the answer is right, its least likely token, seconds and token dollars."""
    response = await client.post(
        "/v1/chat/completions",
        json={
            "messages": [{"role": "user", "content": question.prompt}],
            "model": "demo",
            "temperature": 0,
            "max_tokens": 200,
            "frugal": {"token_stats": True},
        },
    )
    response.raise_for_status()
    reply = response.json()
    text = reply["choices"][0]["message"]["content"] or ""
    trust = math.exp(min(reply["frugal"]["token_stats"]["logprobs"], default=-math.inf))
    usage = reply["usage"]
    dollars = usage["prompt_tokens"] * _INPUT_USD + usage["completion_tokens"] * _OUTPUT_USD
    return is_right(question, text), trust, reply["frugal"]["compute_s"], dollars


async def _pairs(questions: Sequence[Question], small: str, large: str) -> list[Pair]:
    pairs = []
    async with (
        httpx.AsyncClient(base_url=small, timeout=60, trust_env=False) as tiny,
        httpx.AsyncClient(base_url=large, timeout=60, trust_env=False) as big,
    ):
        for question in questions:
            mine, theirs = await asyncio.gather(_answer(tiny, question), _answer(big, question))
            small_usd = mine[2] * _HOUR_USD / 3600
            pairs.append(Pair(mine[0], mine[1], small_usd, theirs[0], theirs[3]))
    return pairs


def _unlike_the_demos(questions: Sequence[Question]) -> list[Question]:
    """Leave out what the demo asks: all seeds draw from one pool of held-out questions."""
    asked = {question.canonical_key for question in held_out(DEMO_QUESTIONS, DEMO_SEED)}
    return [question for question in questions if question.canonical_key not in asked]


def main() -> int:
    """Ask both models, then print a row a threshold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=8230)
    arguments = parser.parse_args()
    ports = {"demo/tiny": arguments.port, "demo/small": arguments.port + 1}
    with ExitStack() as stack:
        for name, port in ports.items():
            command = [sys.executable, "-m", "local_engine.server", name, "--port", str(port),
                       "--model-name", "demo", "--quantization",
                       "int8" if name == "demo/tiny" else "none", "--threads", "1"]  # fmt: skip
            stack.enter_context(running(command, ready=f"http://127.0.0.1:{port}/health"))
        questions = _unlike_the_demos(held_out(arguments.questions, arguments.seed))
        urls = [f"http://127.0.0.1:{port}" for port in ports.values()]
        pairs = asyncio.run(_pairs(questions, *urls))
    _print(pairs)
    return 0


def _print(pairs: Sequence[Pair]) -> None:
    count = len(pairs)
    large_usd = sum(pair.large_usd for pair in pairs)
    table = Table(title=f"{count} held-out questions")
    for title in ("threshold", "right", "cost", "escalated", "right among accepted"):
        table.add_column(title, justify="right")
    small = sum(pair.small_is_right for pair in pairs) / count
    table.add_row("small", f"{small:.1%}", f"{sum(p.small_usd for p in pairs) / large_usd:.0%}",
                  "0%", f"{small:.1%}")  # fmt: skip
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995):
        kept = [pair for pair in pairs if pair.trust >= threshold]
        sent = [pair for pair in pairs if pair.trust < threshold]
        right = sum(p.small_is_right for p in kept) + sum(p.large_is_right for p in sent)
        usd = sum(p.small_usd for p in pairs) + sum(p.large_usd for p in sent)
        among = sum(p.small_is_right for p in kept) / len(kept) if kept else math.nan
        table.add_row(f"{threshold:g}", f"{right / count:.1%}", f"{usd / large_usd:.0%}",
                      f"{len(sent) / count:.0%}", f"{among:.1%}")  # fmt: skip
    large = sum(pair.large_is_right for pair in pairs) / count
    table.add_row("large", f"{large:.1%}", "100%", "", "")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
