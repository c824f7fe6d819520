"""`idempotency-key`: a request sent again joins the first one, or gets its answer again.

The answer is kept for a day under who asked, their key and the fingerprint of
what was asked, in memory, in Redis where processes share one, and on disk. A
mark beside it says which body a key was first used with. After the draft
"The Idempotency-Key HTTP Header Field" of the IETF's httpapi group; where that
refuses a repetition of what is still under way, it joins here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from cache.exact import ExactCache, Seat
from cache.fingerprint import fingerprint, partition
from cache.freshness import Freshness
from cache.types import CachedReply, LeaderFailed
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import KeyReused
from gateway.released import Released
from gateway.shelf import Kept, Shelf
from gateway.travel import ReleasedCodec
from gateway.turns import Turns
from gateway.wire import Part

KEEP_S = 86_400.0
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that is kept for repetitions; of a longer one, each is a request anew."""

_A_DAY = Freshness(KEEP_S)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a request and its repetitions have in common. `mark` does not depend on the body."""

    mark: bytes
    answer: bytes
    body: bytes


class Repeats:
    """The answers that may be asked for again."""

    def __init__(
        self,
        answers: ExactCache[Released],
        clock: Clock,
        shelf: Shelf | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._answers = answers
        self._clock = clock
        self._shelf = shelf
        self._turns = turns

    async def seat(self, entry: Entry) -> Seat[Released]:
        """Return a request's seat among its repetitions. Raises KeyReused for another body."""
        names = _names(entry)
        first = self._answers.find(names.mark)
        if first is None:
            await self._recall(names)
        if not await self._is_same(names, entry):
            raise _reused()
        return self._answers.seat(names.answer, _A_DAY, max_entry=MAX_ANSWER)

    @asynccontextmanager
    async def turn(self, entry: Entry) -> AsyncIterator[CachedReply | None]:
        """Let other processes of this machine finish the same; yield what one of them has kept.

        Raises KeyReused where that answers another body.
        """
        names = _names(entry)
        if self._turns is None or self._shelf is None:
            yield None
            return
        async with self._turns.taken(names.mark.hex()) as has_waited:
            kept = None
            if has_waited:
                now = self._clock.wall()
                kept = await asyncio.to_thread(self._shelf.get, names.mark, at=now)
            if kept is not None and kept.body != names.body:
                raise _reused()
            yield kept.reply if kept is not None else None

    def pass_on(self, seat: Seat[Released], reply: CachedReply) -> None:
        """Give those who wait for a leader's answer the one that another process has kept."""
        for piece in ReleasedCodec().pieces(reply):
            seat.publish(piece)
        seat.keep(reply)

    async def keep(self, entry: Entry, seat: Seat[Released], reply: CachedReply) -> None:
        """Keep a whole answer for repetitions, unless its client wants nothing stored."""
        if entry.request.cache == "no-store" or reply.size > MAX_ANSWER:
            return
        names = _names(entry)
        if self._shelf is not None:
            now = self._clock.wall()
            kept = Kept(names.body, reply, now + KEEP_S)
            await asyncio.to_thread(self._shelf.put, names.mark, kept, at=now)
        seat.keep(reply)

    async def _recall(self, names: _Names) -> None:
        """Take back into memory what was kept before a restart, or by another process."""
        if self._shelf is None:
            return
        now = self._clock.wall()
        kept = await asyncio.to_thread(self._shelf.get, names.mark, at=now)
        if kept is not None:
            left_s = kept.expires_at - now
            self._answers.keep(names.mark, self._mark(kept.body), left_s)
            if kept.body == names.body:
                self._answers.keep(names.answer, kept.reply, left_s)

    async def _is_same(self, names: _Names, entry: Entry) -> bool:
        """Return whether the key was first used with the same body; the first one says so."""
        with self._answers.seat(names.mark, _A_DAY, max_entry=MAX_ANSWER) as seat:
            while seat.may_look_further:
                await seat.look_further()
            if seat.hit is not None:
                return seat.hit.parts[0] == names.body
            if seat.is_follower and (body := await _told(seat)) is not None:
                return body == names.body
            if seat.is_leader:
                seat.publish(Released(Part(names.body), entry))
                seat.keep(self._mark(names.body))
        return True

    def _mark(self, body: bytes) -> CachedReply:
        return CachedReply(
            parts=(body,),
            streamed=False,
            model="",
            usage={},
            created_at=self._clock.wall(),
            path="",
        )


def _reused() -> KeyReused:
    return KeyReused(
        "this idempotency-key was used for another request; "
        "send the same body again, or choose a new key",
        param="idempotency-key",
    )


def _names(entry: Entry) -> _Names:
    """Name a request by its caller, its key and its body, whatever the policy's revision is."""
    request, caller = entry.request, entry.caller
    body = fingerprint(caller.tenant, entry.route_name, "", request.body)
    asked = "\0".join(("repeat", caller.tenant, caller.key, request.repeat_key or "")).encode()
    return _Names(_name(caller.tenant, asked), _name(caller.tenant, asked + body), body)


def _name(tenant: str, asked: bytes) -> bytes:
    own = partition(tenant)
    return own + sha256(asked).digest()[: 32 - len(own)]


async def _told(seat: Seat[Released]) -> bytes | None:
    """Return the body that another process, just now, used the key with."""
    body: bytes | None = None
    try:
        async with aclosing(seat.follow(whole=True)) as pieces:
            async for piece in pieces:
                body = piece.part.data
    except LeaderFailed:
        return None
    return body
