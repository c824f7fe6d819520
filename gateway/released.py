"""Parts that may leave: shared with equal requests, kept in the cache, replayed from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec

from cache.exact import Seat
from cache.fingerprint import writer_mark
from cache.types import CachedReply, LeaderFailed
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import GatewayError, ProviderUnavailable
from gateway.money.usage import Usage
from gateway.replay import fold, unfold
from gateway.wire import Part


@dataclass(frozen=True, slots=True)
class Told:
    """The account of a request that another process has paid for."""

    model: str
    path: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Released:
    """A part that will not be withdrawn, and the account of the request that paid for it."""

    part: Part
    leader: Entry | Told

    @property
    def size(self) -> int:
        """Return the bytes of the part."""
        return len(self.part.data)


async def followed(seat: Seat[Released], entry: Entry) -> AsyncGenerator[Part, None]:
    """Yield the answer of the equal request under way, in this client's own mode.

    Raises the leader's own error when it failed after we had begun to receive.
    """
    held: list[Part] = []
    try:
        async with aclosing(seat.follow(whole=not entry.request.stream)) as pieces:
            async for released in pieces:
                _credit(entry, released.leader)
                if is_event(released.part) == entry.request.stream:
                    yield released.part
                else:
                    held.append(released.part)
    except LeaderFailed as exc:
        if isinstance(exc.error, GatewayError):
            raise exc.error.again() from exc
        raise ProviderUnavailable(str(exc)) from exc
    if held:
        for part in in_mode(held, stream=entry.request.stream):
            yield part


def size_of(part: Part) -> int:
    """Return the bytes of a part."""
    return len(part.data)


def _credit(entry: Entry, leader: Entry | Told) -> None:
    entry.cache = "exact"
    if isinstance(leader, Entry) and leader.cache == "semantic":
        entry.cache, entry.similarity = leader.cache, leader.similarity
    entry.age_s = 0
    entry.cached_model = leader.model
    entry.cached_path = leader.path
    entry.cached_usage = usage_of(leader)


def usage_of(leader: Entry | Told) -> Usage | None:
    """Return what the answer took, as far as it is known by now."""
    if isinstance(leader, Told):
        return leader.usage
    return leader.served.usage if leader.served else leader.cached_usage


def replayed(hit: CachedReply, entry: Entry, clock: Clock) -> Sequence[Part]:
    """Return a kept answer in the mode that this client asked for."""
    entry.cache = "exact"
    entry.age_s = max(0, int(clock.wall() - hit.created_at))
    entry.cached_model = hit.model
    entry.cached_path = hit.path
    entry.cached_usage = usage_told(hit.usage)
    if hit.streamed == entry.request.stream:
        return [Part(data) for data in hit.events(include_usage=entry.request.include_usage)]
    parts = [Part(data) for data in hit.events(include_usage=True)]
    return in_mode(parts, stream=entry.request.stream)


def cached(
    parts: Sequence[Part], entry: Entry, clock: Clock, worth: float, *, is_shared: bool = False
) -> CachedReply:
    """Return the answer as the cache keeps it; `worth` is what it would cost again.

    One that tenants share says who paid for it.
    """
    usage = next((part.usage for part in reversed(parts) if part.usage), None)
    usage_event = next((part.data for part in parts if part.is_usage_only), None)
    return CachedReply(
        parts=tuple(part.data for part in parts if not part.is_usage_only),
        streamed=entry.request.stream,
        model=entry.model,
        usage=msgspec.structs.asdict(usage) if usage else {},
        created_at=clock.wall(),
        path=entry.path,
        usage_event=usage_event,
        worth=worth,
        route=entry.route_name,
        tags=(*sorted(entry.caller.tags | entry.request.tags), *_paid_by(entry, is_shared)),
    )


def _paid_by(entry: Entry, is_shared: bool) -> tuple[str, ...]:
    return (writer_mark(entry.caller.tenant),) if is_shared else ()


def usage_told(kept: Mapping[str, Any]) -> Usage | None:
    """Return the usage of an entry; buckets that a later version may know are passed over."""
    try:
        return Usage(**kept) if kept else None
    except TypeError:
        known = Usage.__struct_fields__
        return Usage(**{name: count for name, count in kept.items() if name in known})


def is_event(part: Part) -> bool:
    """Return whether a part is an event of a stream, not a whole body."""
    return part.data.startswith(b"data:")


def in_mode(parts: Sequence[Part], *, stream: bool) -> Sequence[Part]:
    """Return a whole answer as events or as one body, whichever is asked for."""
    if is_event(parts[0]) == stream:
        return parts
    usage = next((part.usage for part in reversed(parts) if part.usage), None)
    if not stream:
        return [
            msgspec.structs.replace(parts[0], data=fold([part.data for part in parts]), usage=usage)
        ]
    events = unfold(parts[0].data, include_usage=True)
    bare = unfold(parts[0].data, include_usage=False)
    return [
        Part(event, usage=usage if number == 0 else None, is_usage_only=number >= len(bare))
        for number, event in enumerate(events)
    ]
