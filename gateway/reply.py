"""An answer under way, as the edge sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cache.exact import Seat
from gateway.entry import Entry
from gateway.money.price import shown_usd
from gateway.released import Released
from gateway.wire import Part

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline


class Reply:
    """An answer under way: its parts, and what its headers will say."""

    def __init__(self, pipeline: Pipeline, entry: Entry, seat: Seat[Released] | None) -> None:
        self._pipeline = pipeline
        self._entry = entry
        self._seat = seat

    def parts(self) -> AsyncGenerator[Part, None]:
        """Begin the answer; its entry is durable once its parts have ended."""
        return self._pipeline.answer(self._entry, self._seat)

    @property
    def is_instant(self) -> bool:
        """Return whether nothing but the ledger will be waited for."""
        return self._seat is not None and self._seat.hit is not None

    @property
    def is_immediate(self) -> bool:
        """Return whether it is instant, and limits are looked at without waiting for others."""
        return self.is_instant and self._pipeline.admits_at_once

    def replay(self) -> Coroutine[Any, Any, Sequence[Part]]:
        """Return the parts of an instant answer, whose entry is durable by then."""
        assert self._seat is not None, "only a hit is instant"
        return self._pipeline.replay(self._entry, self._seat)

    @property
    def may_be_told(self) -> bool:
        """Return whether other processes may have the answer, and little else is waited for."""
        seat = self._seat
        return seat is not None and seat.may_ask_others and self._pipeline.admits_at_once

    def told(self) -> Coroutine[Any, Any, Sequence[Part] | None]:
        """Return the parts of an answer that other processes have, accounted for as others are.

        None where they have none: `parts` or `let_go` come next.
        """
        assert self._seat is not None, "only who sits at the cache asks others"
        return self._pipeline.told(self._entry, self._seat)

    def let_go(self) -> None:
        """Give up the place at the cache of an answer that was not begun."""
        if self._seat is not None:
            self._seat.let_go()

    @property
    def is_shared(self) -> bool:
        """Return whether others wait for the same answer, or this client may ask for it again."""
        return self._entry.is_first or (self._seat is not None and self._seat.has_followers)

    @property
    def keepalive(self) -> float | None:
        """Return how often a waiting stream wants a sign of life, in seconds."""
        cascade = self._entry.route.cascade
        return cascade.keepalive if cascade else None

    def headers(self, *, cost: bool) -> list[tuple[bytes, bytes]]:
        """Return the response headers; cost and saving only once the entry is settled."""
        entry = self._entry
        found = [
            (b"x-request-id", entry.request.id.encode()),
            (b"x-cache", entry.cache.encode()),
            (b"x-frugal-model", entry.model.encode()),
            (b"x-frugal-path", entry.path.encode("latin-1", "replace")),
        ]
        if entry.is_replay:
            found.append((b"x-frugal-replayed", b"true"))
        if entry.age_s is not None:
            found.append((b"age", b"%d" % entry.age_s))
        if entry.similarity is not None:
            found.append((b"x-cache-similarity", b"%.4f" % entry.similarity))
        if entry.permit is not None:
            found += entry.permit.headers()
        if cost:
            found.append((b"x-frugal-cost-usd", shown_usd(entry.cost_nano).encode()))
            found.append((b"x-frugal-saved-usd", shown_usd(entry.saved_nano).encode()))
        return found

    def cost_event(self) -> bytes:
        """Return the last event of a stream whose client asked for its cost."""
        entry = self._entry
        frugal = {
            "cost_usd": shown_usd(entry.cost_nano),
            "saved_usd": shown_usd(entry.saved_nano),
            "path": entry.path,
            "cache": entry.cache,
        }
        event = {
            "id": entry.request.id,
            "object": "chat.completion.chunk",
            "created": int(entry.started_at),
            "model": entry.model,
            "choices": [],
            "frugal": frugal,
        }
        return b"data: " + msgspec.json.encode(event) + b"\n\n"
