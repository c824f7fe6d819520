"""What may be known of a request's meaning, computed at most once and only when asked for.

One vector of the last user turn serves the semantic cache and a router that
learns; neither knows the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.semantic.embedder import Vector

    Embed = Callable[[str], Awaitable[Vector | None]]


class Features:
    """The meaning of one request."""

    __slots__ = ("_embed", "_messages", "_task")

    def __init__(self, messages: Sequence[Mapping[str, Any]], embed: Embed) -> None:
        self._messages = messages
        self._embed = embed
        self._task: asyncio.Task[Vector | None] | None = None

    @property
    def question(self) -> str:
        """Return the text of the last user turn; empty where there is none."""
        for message in reversed(self._messages):
            if message.get("role") == "user":
                return text_of(message.get("content"))
        return ""

    async def vector(self) -> Vector | None:
        """Return the vector of the last user turn; None where it cannot be had.

        Whoever asks first starts the work, and nobody's leaving stops it.
        """
        if self._task is None:
            self._task = asyncio.ensure_future(self._computed())
        return await asyncio.shield(self._task)

    async def _computed(self) -> Vector | None:
        question = self.question
        return await self._embed(question) if question else None


def text_of(content: object) -> str:
    """Return the words of a message's content, its text parts a line each."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
