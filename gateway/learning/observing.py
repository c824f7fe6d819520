"""What a route learns from while it serves: drafts beside the reference's answer.

A request that went on to the reference gives such a pair for nothing. Of those that a
draft answered, a share drawn beforehand is asked again of the reference, behind the
client's back and at the gateway's own cost. The coin is thrown before anything is known
of a request, so drawn requests are like all others; while the day's money is used up, or
too much waits, none is drawn at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.learning.book import Book, OutcomeRow
from gateway.learning.comparing import (
    is_no_worse,
    is_no_worse_call,
    is_no_worse_tested,
    judging,
    score_of,
    words_of_answer,
)
from gateway.money.errors import LedgerError
from policies.cascade import Audit, Learning
from policies.kinds import LEARNED
from policies.schema import Policy, Privacy, Route
from router.forms import FORMS
from router.query import query_of
from router.types import TokenStats, Verdict
from router.validators import NOTHING, Wanted, fault_of

if TYPE_CHECKING:
    from gateway.attempt import Attempt
    from gateway.entry import Entry
    from gateway.money.records import AttemptRecord
    from gateway.semantic import OwnAnswer

_MOST_WAITING = 256
_VERSIONS = 5
_CHECKED = 0.2
_AT_ONCE = 4
_PRUNE_EVERY = 500
_DAY_S = 86_400
_log = logging.getLogger(__name__)


class OwnCalls(Protocol):
    """Calls that the gateway makes at its own cost."""

    def ask_reference(self, entry: Entry, model: str) -> Awaitable[OwnAnswer]:
        """Ask one model what a client was answered by another."""
        ...

    def ask_judge(self, entry: Entry, body: Mapping[str, Any]) -> Awaitable[OwnAnswer]:
        """Ask a judge model about what became of a request."""
        ...


@dataclass(frozen=True, slots=True)
class _Watched:
    """A route that is learnt from. Without `audit`, only what comes for nothing is.

    `tiers` are those of which a drawn request is to tell, if need be by asking them afterwards:
    to learn from the ones alone that were asked on the way would be to learn from hard requests.
    """

    reference: str
    audit: Audit | None
    revision: str
    bundle: str
    tiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Label:
    """1 or 0 and who says so; None and nobody where it cannot be told.

    `checked` is what a judge said as well, whose error is measured by it.
    """

    score: float | None
    labeller: str
    checked: float | None = None


_UNTOLD = _Label(None, "")


@dataclass(slots=True)
class _Pair:
    """A request on its way to be compared."""

    entry: Entry
    lines: Sequence[AttemptRecord]
    own: OwnCalls
    at_us: int
    is_drawn: bool


class Observer:
    """Draws requests, compares their drafts with the reference, and keeps what comes of it."""

    def __init__(
        self,
        policy: Policy,
        book: Book,
        wall: Callable[[], float],
        chance: Callable[[], float] = random,
    ) -> None:
        self.book = book
        self._privacy = policy.privacy
        self._wall = wall
        self._chance = chance
        self._routes = watched(policy)
        self._spent_up: dict[str, int] = {}
        self._queue: asyncio.Queue[_Pair] = asyncio.Queue(_MOST_WAITING)
        self._versions: dict[str, dict[str, deque[str]]] = {}
        self.dropped = 0
        self._learnt = 0

    def draws(self, entry: Entry) -> bool:
        """Throw the coin for a request that is about to be routed."""
        route = self._routes.get(entry.route_name)
        if route is None or route.audit is None or not self._may_learn(entry):
            return False
        is_held = self._spent_up.get(entry.route_name) == self._day()
        if is_held or self._queue.qsize() * 2 >= _MOST_WAITING:
            return False
        return self._chance() < route.audit.share

    def note(self, entry: Entry, lines: Sequence[AttemptRecord], own: OwnCalls) -> None:
        """Take note of a request that has been answered; whatever follows is done elsewhere."""
        route = self._routes.get(entry.route_name)
        if route is None or not entry.attempts:
            return
        self._note_versions(entry)
        if not self._may_learn(entry):
            return
        if entry.state != "settled" or not _drafts(entry, route.reference):
            return
        has_both = _reference(entry, route.reference) is not None
        if not (has_both or entry.is_drawn):
            return
        try:
            pair = _Pair(entry, lines, own, int(self._wall() * 1e6), entry.is_drawn)
            self._queue.put_nowait(pair)
        except asyncio.QueueFull:
            self.dropped += 1

    def versions(self, route: str) -> Mapping[str, Sequence[str]]:
        """Return the versions that upstreams of a route have named lately, the newest last."""
        return {model: tuple(own) for model, own in self._versions.get(route, {}).items()}

    def _note_versions(self, entry: Entry) -> None:
        own = self._versions.setdefault(entry.route_name, {})
        for attempt in entry.attempts:
            if attempt.answered_by:
                own.setdefault(attempt.model, deque(maxlen=_VERSIONS)).append(attempt.answered_by)

    def _may_learn(self, entry: Entry) -> bool:
        return entry.caller.may_learn and entry.own_account is None

    async def work(self) -> None:
        """Compare what waits, one after the other; run as often as may be under way at once."""
        while True:
            pair = await self._queue.get()
            try:
                await self._learn(pair)
            except LedgerError as exc:
                _log.warning("nothing is learnt from a request: %s", exc)
            except Exception:
                _log.exception("nothing is learnt from a request")
            finally:
                self._queue.task_done()

    async def _learn(self, pair: _Pair) -> None:
        entry = pair.entry
        route = self._routes[entry.route_name]
        truth = _reference(entry, route.reference)
        asked: OwnAnswer | None = None
        if truth is None:
            asked = await self._asked(pair, route)
            truth = asked.attempt if asked else None
        rows = []
        for draft in _drafts(entry, route.reference):
            label = _UNTOLD
            if truth is not None:
                label = await self._compared(pair, route, draft, truth)
            rows.append(self._row(pair, route, draft, label))
        if truth is not None:
            rows.append(self._row(pair, route, truth, _Label(1.0, "reference"), asked))
            rows += [row async for row in self._beside(pair, route, truth)]
        await asyncio.to_thread(self.book.add, rows)
        self._learnt += 1
        if self._learnt % _PRUNE_EVERY == 0:
            await asyncio.to_thread(self.book.prune, entry.route_name)

    async def _asked(self, pair: _Pair, route: _Watched) -> OwnAnswer | None:
        """Ask the reference; None where the day's money is used up.

        Such a draft stays in the sample without a score, which a certificate takes for a
        loss: to leave it out would leave out served drafts alone.
        """
        name = pair.entry.route_name
        if route.audit is None or not await self._may_spend(name, route.audit):
            return None
        answer = await pair.own.ask_reference(pair.entry, route.reference)
        await self._spend(name, answer)
        return answer

    async def _beside(
        self, pair: _Pair, route: _Watched, truth: Attempt
    ) -> AsyncIterator[OutcomeRow]:
        """Ask the tiers that a drawn request has passed over, as far as the day's money goes."""
        entry = pair.entry
        met = {each.model for each in entry.attempts} | {each.model for each in entry.skipped}
        for place, model in enumerate(route.tiers if pair.is_drawn else ()):
            if model in met or route.audit is None:
                continue
            if not await self._may_spend(entry.route_name, route.audit):
                return
            answer = await pair.own.ask_reference(entry, model)
            await self._spend(entry.route_name, answer)
            if answer.attempt is not None:
                label = await self._compared(pair, route, answer.attempt, truth)
                row = self._row(pair, route, answer.attempt, label, answer)
                told = msgspec.json.decode(row.stats) | {"beside": 1}
                stats = msgspec.json.encode(told).decode()
                yield msgspec.structs.replace(row, seq=row.seq + 1 + place, stats=stats)

    async def _compared(
        self, pair: _Pair, route: _Watched, draft: Attempt, truth: Attempt
    ) -> _Label:
        """Return what the answers tell by themselves, else what a judge says of them.

        Of those that tell it, a share is put to the judge all the same, to measure its error.
        """
        if draft.verdict is not None and not draft.verdict.servable:
            return _Label(0.0, "exact")
        # Examples of a question are run, which may take a while.
        told = await asyncio.to_thread(_told_apart, pair.entry, draft, truth)
        audit = route.audit
        if audit is None or audit.judge is None or not pair.is_drawn:
            return told or _UNTOLD
        if told is None:
            score = await self._judged(pair, audit, audit.judge, draft, truth)
            return _UNTOLD if score is None else _Label(score, "judge")
        if self._chance() >= _CHECKED:
            return told
        checked = await self._judged(pair, audit, audit.judge, draft, truth)
        return _Label(told.score, told.labeller, checked)

    async def _judged(
        self, pair: _Pair, audit: Audit, judge: str, draft: Attempt, truth: Attempt
    ) -> float | None:
        """Return 1 or 0 as a judge says who reads the answers in both orders; None if neither."""
        told: list[str | None] = []
        for one, other in ((draft, truth), (truth, draft)):
            if not await self._may_spend(pair.entry.route_name, audit):
                return None
            messages = pair.entry.request.body["messages"]
            first, second = (words_of_answer(each.text, each.calls) for each in (one, other))
            body = judging(judge, messages=messages, first=first, second=second)
            answer = await pair.own.ask_judge(pair.entry, body)
            await self._spend(pair.entry.route_name, answer)
            told.append(answer.text)
        return score_of(*told)

    async def _may_spend(self, route: str, audit: Audit) -> bool:
        spent = await asyncio.to_thread(self.book.spent, route, self._day())
        if spent < audit.max_usd_per_day * 1_000_000_000:
            return True
        self._spent_up[route] = self._day()
        return False

    async def _spend(self, route: str, answer: OwnAnswer) -> None:
        await asyncio.to_thread(self.book.spend, route, self._day(), answer.nano_usd)

    def _day(self) -> int:
        return int(self._wall() // _DAY_S)

    def _row(
        self,
        pair: _Pair,
        route: _Watched,
        attempt: Attempt,
        label: _Label,
        asked: OwnAnswer | None = None,
    ) -> OutcomeRow:
        entry = pair.entry
        line = next((x for x in pair.lines if asked is None and x.seq == attempt.seq), None)
        usage = line.usage if line else attempt.usage
        return OutcomeRow(
            request_id=entry.request.id,
            model=attempt.model,
            at_us=pair.at_us,
            seq=attempt.seq if asked is None else len(entry.attempts),
            route=entry.route_name,
            tenant=entry.caller.tenant,
            revision=route.revision,
            bundle=route.bundle,
            reference=route.reference,
            answered_by=attempt.answered_by or "",
            served=attempt is entry.served,
            drawn=pair.is_drawn,
            quality=attempt.verdict.confidence if attempt.verdict else None,
            propensity=route.audit.share if route.audit and pair.is_drawn else None,
            score=label.score,
            labeller=label.labeller,
            finish_reason=attempt.finish_reason,
            prompt_tokens=usage.input if usage else 0,
            completion_tokens=usage.output if usage else 0,
            cost_nano_usd=line.cost_nano_usd if line else asked.nano_usd if asked else 0,
            latency_us=int(attempt.latency_s * 1e6),
            stats=summary_of(attempt.stats, attempt.verdict, judge=label.checked),
            **_kept(self._privacy, entry, attempt),
        )


def _told_apart(entry: Entry, draft: Attempt, truth: Attempt) -> _Label | None:
    """Return the label that both answers tell by themselves, and how; None where they do not."""
    if any(each.has_tool_calls and not each.calls for each in (draft, truth)):
        return None  # what they call could not be read
    wanted = Wanted.of_request(entry.request.body)
    if wanted is not NOTHING:
        broken, its = (fault_of(each.text, each.calls, wanted) for each in (draft, truth))
        if broken and not its:
            return _Label(0.0, "schema")
    if not (draft.has_tool_calls or truth.has_tool_calls):
        question = query_of(entry.request.body["messages"]).text
        tested = is_no_worse_tested(question, draft.text, truth.text)
        if tested is not None:
            return _Label(float(tested), "test")
    if draft.has_tool_calls or truth.has_tool_calls:
        same = is_no_worse_call(draft.calls, truth.calls)
    else:
        same = is_no_worse(draft.text, truth.text)
    return None if same is None else _Label(float(same), "exact")


def watched(policy: Policy) -> dict[str, _Watched]:
    """Return the routes of a policy that are learnt from: learned ones, and any with audits."""
    return {
        name: _Watched(
            route.cascade.reference_model,
            route.cascade.audit,
            policy.revision(name),
            route.cascade.bundle_id or str(route.cascade.bundle or ""),
            _tiers(route, policy.privacy),
        )
        for name, route in policy.routes.items()
        if route.cascade is not None
        and (route.cascade.audit is not None or route.confidence.kind == LEARNED)
    }


def _tiers(route: Route, privacy: Privacy) -> tuple[str, ...]:
    """Return the tiers of which every drawn request is to tell: where a whole learner may come."""
    cascade = route.cascade
    assert cascade is not None, "only cascades are learnt from"
    learns = route.confidence.kind == LEARNED and cascade.bundle is None and cascade.target
    if not (learns and privacy.store_texts and (cascade.learning or Learning()).automatic):
        return ()
    return tuple(tier for tier in cascade.tiers if tier != cascade.reference_model)


def summary_of(
    stats: TokenStats | None, verdict: Verdict | None = None, *, judge: float | None = None
) -> str:
    """Return as JSON what the tokens of an answer came to, under the names of outcomes.

    With it goes how sure its own signs made it (`raw`), what was `expected` before it, and what
    a `judge` said whose error is being measured.
    """
    believed = {
        name: value
        for name in ("raw", "expected")
        if verdict is not None and (value := getattr(verdict, name)) is not None
    }
    checked = {} if judge is None else {"judge": judge}
    return msgspec.json.encode(believed | checked | _of_tokens(stats)).decode()


def _of_tokens(stats: TokenStats | None) -> dict[str, float]:
    if stats is None or not stats.count:
        return {}
    ordered = sorted(stats.logprobs)
    last = len(ordered) - 1
    told: dict[str, float] = {
        f"logprob_q{share:02d}": min(0.0, ordered[round(last * share / 100)])
        for share in (0, 5, 10, 20, 50)
    }
    for name, values in (("margin", stats.margins), ("entropy", stats.entropies)):
        known = [value for value in values if value is not None and value == value]
        if known:
            told[name] = sum(known) / len(known)
    return told | {"count": stats.count}


def _kept(privacy: Privacy, entry: Entry, attempt: Attempt) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    vector = entry.features.known_vector if entry.features and privacy.store_vectors else None
    if vector is not None:
        kept["vector"] = vector.tobytes()
    if privacy.store_texts:
        kept["messages"] = msgspec.json.encode(_asked(entry, attempt)).decode()
        kept["response"] = attempt.text
    return kept


def _asked(entry: Entry, attempt: Attempt) -> Any:
    """Return the conversation; with the form asked for and the calls made, where there are any."""
    body = entry.request.body
    told = {name: body[name] for name in FORMS if body.get(name)}
    if attempt.calls:
        told["tool_calls"] = [
            {"name": call.name, "arguments": call.arguments} for call in attempt.calls
        ]
    return {"messages": body["messages"], **told} if told else body["messages"]


def _drafts(entry: Entry, reference: str) -> list[Attempt]:
    return [
        each
        for each in entry.tried
        if each.model != reference and each.is_complete and each.verdict is not None
    ]


def _reference(entry: Entry, reference: str) -> Attempt | None:
    for each in entry.tried:
        if each.model == reference and each.is_complete and each.error is None:
            return each
    return None


@asynccontextmanager
async def observing(
    policy: Policy, ledger_url: str, wall: Callable[[], float]
) -> AsyncIterator[Observer | None]:
    """Yield who learns from a policy's routes, None where none is learnt from."""
    if not watched(policy):
        yield None
        return
    book = await asyncio.to_thread(Book, ledger_url)
    observer = Observer(policy, book, wall)
    tasks = [asyncio.create_task(observer.work()) for _ in range(_AT_ONCE)]
    try:
        yield observer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        book.close()
