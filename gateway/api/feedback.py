"""`/v1/feedback`: a client says how good an answer was."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request
from msgspec import Meta, Struct

from gateway.access.gcra import taken, wait_for
from gateway.access.keys import Caller
from gateway.api.public import calling
from gateway.api.reports import reporting
from gateway.errors import InvalidRequest, NotFound, PayloadTooLarge, RateLimited

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.learning.feedback import Feedback

PER_MINUTE = 60
"""Words that one process takes of a key in a minute."""
_MOST_BYTES = 4096
_BAD = 0.5
_EXAMPLE = '{"request_id": "req_...", "rating": "good"}'

RequestId = Annotated[str, Meta(min_length=1, max_length=128)]
Score = Annotated[float, Meta(ge=0, le=1)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """A body: one of `rating` and `score`; `label` is what would have been right, in short."""

    request_id: RequestId
    rating: Literal["good", "bad"] | None = None
    score: Score | None = None
    label: Label | None = None

    @property
    def value(self) -> float:
        """Return the score that was meant. Raises InvalidRequest."""
        if (self.rating is None) == (self.score is None):
            raise InvalidRequest(
                "expected one of `rating` (good, bad) and `score` (0 to 1), found "
                + ("neither" if self.rating is None else "both"),
                param="rating",
            )
        return float(self.rating == "good") if self.score is None else self.score


@dataclass(slots=True)
class Pace:
    """How fast each key may speak. The time is passed in."""

    full_at: dict[str, float] = field(default_factory=dict)

    def take(self, key: str, now: float) -> None:
        """Let a key say one more thing. Raises RateLimited."""
        full_at = self.full_at.get(key, 0.0)
        if (wait_s := wait_for(full_at, 1, PER_MINUTE, now)) > 0:
            raise RateLimited(
                f"this key may send {PER_MINUTE} feedbacks a minute; wait and send it again",
                retry_after=str(ceil(wait_s)),
            )
        self.full_at[key] = taken(full_at, 1, PER_MINUTE, now)


def feedback_routes(app: FastAPI, running: Running) -> None:
    """Add `POST /feedback` to `app`, with and without `/v1`."""
    routes, pace = APIRouter(), Pace()

    @routes.post("/feedback")
    async def feedback(
        request: Request, caller: Annotated[Caller, Depends(calling)]
    ) -> dict[str, Any]:
        pace.take(caller.key, running.tick())
        said = read_said(await _body(request))
        score = said.value
        with reporting():
            word = await asyncio.to_thread(_kept, running, caller, said, score)
        if word.cache == "semantic" and word.weight > 0 and word.score < _BAD and running.near:
            await running.near.doubt(word.request_id, word.tenant)
        return {
            "object": "feedback",
            "request_id": word.request_id,
            "route": word.route,
            "model": word.model or None,
            "score": word.score,
            "label": word.label,
            "counts": word.weight > 0,
        }

    app.include_router(routes)
    app.include_router(routes, prefix="/v1")


def read_said(raw: bytes) -> Said:
    """Read a body. Raises InvalidRequest."""
    try:
        return msgspec.json.decode(raw, type=Said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"{exc}; send for example {_EXAMPLE}") from exc


async def _body(request: Request) -> bytes:
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > _MOST_BYTES:
            raise PayloadTooLarge(f"the body may hold {_MOST_BYTES} bytes; send less")
    return bytes(read)


def _kept(running: Running, caller: Caller, said: Said, score: float) -> Feedback:
    """Keep a caller's word on an answer to its own tenant; another's is as if it were not there."""
    from gateway.learning.book import Book
    from gateway.learning.feedback import keep, spoken_of, word_of

    spoken = spoken_of((running.spool_url, running.ledger_url), said.request_id)
    if spoken is None or spoken.tenant != caller.tenant:
        raise NotFound(
            f"no answered request {said.request_id!r} of yours is known; "
            "send the x-request-id of an answer",
            param="request_id",
        )
    caller.require(spoken.route)
    label = said.label if running.policy.privacy.store_texts else None
    word = word_of(said.request_id, caller, spoken, score, label, at_us=int(running.wall() * 1e6))
    book = Book(running.ledger_url)
    try:
        return keep(book, word)
    finally:
        book.close()
