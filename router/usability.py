"""What makes a draft no use, whoever judges it: how it ended, and whether it refuses."""

from __future__ import annotations

import re

FINISHED = frozenset(("stop", "tool_calls", "function_call"))

_REFUSAL = re.compile(
    r"\s*(?:(?:i['’]m|i am) (?:very |really |so )?sorry\b[^.!?\n]{0,40}?\b|sorry, (?:but )?"  # noqa: RUF001
    r"|unfortunately,? |i apologi[sz]e\b[^.!?\n]{0,40}?\b|as an ai\b[^.!?\n]{0,60}?\b)?"
    r"\bi(?: am|['’]m)?(?: can['’]?t| cannot| can not| unable to| not able to| won['’]t| will not)"  # noqa: RUF001
    r" (?:help|assist|answer|provide|comply|do that|fulfil|discuss|engage|create|generate|write"
    r"|continue|respond|give|share|support|participate)\b",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Return whether a reply begins by declining to answer."""
    return _REFUSAL.match(text) is not None


def why_useless(text: str, finish_reason: str | None, *, tool_calls: int = 0) -> str | None:
    """Return one word for what no confidence can save, else None.

    `empty`, `truncated`, `filtered`, `unfinished` or `refused`. A draft with
    tool calls may be without text.
    """
    if not tool_calls and not text.strip():
        return "empty"
    if finish_reason == "length":
        return "truncated"
    if finish_reason == "content_filter":
        return "filtered"
    if finish_reason not in FINISHED:
        return "unfinished"
    return "refused" if not tool_calls and refuses(text) else None


def is_servable(reason: str) -> bool:
    """Return whether a useless draft may still be sent where all else has failed."""
    return reason not in ("empty", "unfinished")
