"""What a ledger has learnt from its traffic, as rows of an outcomes table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.learning.book import Book, OutcomeRow
from gateway.learning.errors import LearningError
from gateway.learning.feedback import LABELLER, Feedback, words_of
from gateway.money.errors import LedgerError

_STATS = ("logprob_q00", "logprob_q05", "logprob_q10", "logprob_q20", "logprob_q50")


def outcomes_of(
    ledger_url: str, route: str, reference: str | None = None
) -> Iterator[dict[str, Any]]:
    """Return the outcomes of a route, oldest first, as `frugal train` reads them.

    With a `reference`, those that were set against that model's answers. Texts are there where
    the policy had them stored. Raises LearningError.
    """
    try:
        book = Book(ledger_url)
        try:
            rows = book.rows(route)
            known = [] if rows else book.routes()
        finally:
            book.close()
    except LedgerError as exc:
        raise LearningError(str(exc)) from exc
    if not rows:
        some = ", ".join(known) or "none"
        raise LearningError(f"no outcomes of a route {route!r}; there are outcomes of: {some}")
    found = sorted({row.reference for row in rows})
    if reference not in (None, *found):
        raise LearningError(
            f"--reference: outcomes are set against {', '.join(found)}, not {reference}"
        )
    return (told(row) for row in rows if reference in (None, row.reference))


def words_told(ledger_url: str, route: str) -> Iterator[dict[str, Any]]:
    """Return what clients said of a route's answers, oldest first. Raises LearningError.

    Rows of an outcomes table without prompts: a word of another key on one reply is another
    `sample`. `weight` is 0 where a key has said more than counts.
    """
    try:
        book = Book(ledger_url)
        try:
            words = words_of(book, route)
        finally:
            book.close()
    except LedgerError as exc:
        raise LearningError(str(exc)) from exc
    if not words:
        raise LearningError(f"nobody has given feedback on answers of a route {route!r}")
    samples: Counter[tuple[str, str]] = Counter()
    for word in words:
        yield told_word(word, samples[word.request_id, word.model])
        samples[word.request_id, word.model] += 1


def told_word(word: Feedback, sample: int) -> dict[str, Any]:
    """Return a word as a row of a table; a cache's answers go by the cache's name."""
    found = {
        "query_id": word.request_id,
        "model": word.model or f"{word.cache} cache",
        "sample": sample,
        "route": word.route,
        "score": word.score,
        "weight": word.weight,
        "labeller": LABELLER,
        "label": word.label,
    }
    return {name: value for name, value in found.items() if value is not None}


def export(
    ledger_url: str,
    route: str,
    out: Path,
    *,
    reference: str | None = None,
    feedback: bool = False,
) -> int:
    """Write the outcomes of a route, or its `feedback`, as JSONL; return how many.

    Raises LearningError.
    """
    if out.suffix != ".jsonl":
        raise LearningError(f"--out: expected a name ending in .jsonl, found {out.name!r}")
    count = 0
    rows = (
        list(words_told(ledger_url, route))
        if feedback
        else outcomes_of(ledger_url, route, reference)
    )
    try:
        with out.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    except OSError as exc:
        raise LearningError(f"{out}: {exc.strerror}") from exc
    return count


def told(row: OutcomeRow) -> dict[str, Any]:
    """Return an outcome as a row of a table; what is not known is left out."""
    stats = json.loads(row.stats)
    found = {
        "query_id": row.request_id,
        "model": row.model,
        "route": row.route,
        "score": row.score,
        "finish_reason": row.finish_reason,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_usd": row.cost_nano_usd / 1e9,
        "latency_s": row.latency_us / 1e6,
        "propensity": row.propensity,
        "labeller": row.labeller or None,
        "bundle": row.bundle or None,
        "scored_against": row.reference,
        "response": row.response,
        **{name: stats.get(name) for name in (*_STATS, "entropy")},
        "margin": max(0.0, stats["margin"]) if "margin" in stats else None,
    }
    if row.messages is not None:
        asked = json.loads(row.messages)
        asked = asked if isinstance(asked, dict) else {"messages": asked}
        found |= {**asked, "prompt": _question(asked["messages"])}
    return {name: value for name, value in found.items() if value is not None}


def _question(messages: list[dict[str, Any]]) -> str:
    from gateway.features import Features

    return Features(messages).question
