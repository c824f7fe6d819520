"""Who computes how much in the next step, who joins and who must wait: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds a step.

    Each decoding sequence takes one token of a step; prompts share `prefill_chunk` more,
    so that a long one delays the rest by one chunk at most (Sarathi-Serve). A sequence
    that was preempted `reserve_after` times comes back only with room for all of it.
    """

    max_batch: int
    prefill_chunk: int
    page_size: int
    reserve_after: int = 2
    watermark: float = 0.01

    @property
    def token_budget(self) -> int:
        """Return the most tokens that a step processes."""
        return self.max_batch + self.prefill_chunk


@dataclass(frozen=True, slots=True)
class Standing:
    """How a sequence stands: tokens it lacks and has, and its pages.

    `rank` orders all sequences, the smallest first, and never changes. `own` pages become
    free when it leaves; `shared` ones are in its way when it wants to write its next
    token. For one that waits, `pages` are those that it would find already computed, and
    `idle` those among them that count as free until it takes them.
    """

    rank: tuple[float, int]
    priority: int
    needs: int
    computed: int
    pages: int
    total: int
    own: int = 0
    shared: int = 0
    idle: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Indices of running sequences to put back, of waiting ones to admit, and the takes."""

    preempted: tuple[int, ...]
    admitted: tuple[tuple[int, int], ...]
    takes: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Room:
    """Pages and tokens still to give away in this step."""

    free: int
    prompt: int
    takes: dict[int, int] = field(default_factory=dict)
    preempted: list[int] = field(default_factory=list)


def plan_step(
    running: Sequence[Standing], waiting: Sequence[Standing], free: int, size: int, rules: Rules
) -> Plan:
    """Share one step's tokens and the free ones of `size` pages among sequences.

    In the order of their rank, running sequences advance by one token or their next chunk;
    where pages lack, the last in that order give theirs back and will compute them again.
    The first always advances, and nobody is overtaken for ever, since ranks never change.
    """
    room = _Room(free, rules.prefill_chunk)
    order = sorted(range(len(running)), key=lambda n: running[n].rank)
    is_displaced = _displace(running, order, waiting, room, rules)
    for place, index in enumerate(order):
        if index not in room.preempted:
            _advance(running, order[place + 1 :], index, room, rules)
    admitted = []
    if len(room.preempted) == is_displaced:
        admitted = _admit(waiting, len(running) - len(room.preempted), room, size, rules)
    return Plan(tuple(room.preempted), tuple(admitted), tuple(room.takes.items()))


def _displace(
    running: Sequence[Standing],
    order: Sequence[int],
    waiting: Sequence[Standing],
    room: _Room,
    rules: Rules,
) -> bool:
    """Put the last of a full batch back where one of higher priority and smaller rank waits."""
    if not waiting or len(running) < rules.max_batch:
        return False
    last, first = running[order[-1]], min(waiting, key=lambda w: w.rank)
    if first.priority <= last.priority or first.rank > last.rank:
        return False
    _preempt(running, order[-1], room)
    return True


def _preempt(running: Sequence[Standing], index: int, room: _Room) -> None:
    room.preempted.append(index)
    room.free += running[index].own


def _advance(
    running: Sequence[Standing], later: Sequence[int], index: int, room: _Room, rules: Rules
) -> None:
    """Give one running sequence its tokens, and where pages lack those of later ones."""
    standing = running[index]
    wanted = 1 if standing.needs == 1 else min(standing.needs, room.prompt)
    victims = [n for n in later if n not in room.preempted]
    take = _fitting(standing, wanted, room.free, rules.page_size)
    while wanted and not take and victims:
        _preempt(running, victims.pop(), room)
        take = _fitting(standing, wanted, room.free, rules.page_size)
    if take:
        room.takes[index] = take
        room.free -= _new_pages(standing, take, rules.page_size)
        room.prompt -= take if standing.needs > 1 else 0


def _new_pages(standing: Standing, take: int, size: int) -> int:
    """Return the pages that a sequence needs to compute `take` more tokens."""
    return max(0, -(-(standing.computed + take) // size) - standing.pages) + standing.shared


def _fitting(standing: Standing, wanted: int, free: int, size: int) -> int:
    """Return how many of the wanted tokens find a place on its own and the free pages."""
    places = (standing.pages + free - standing.shared) * size - standing.computed
    return max(0, min(wanted, places)) if free >= standing.shared else 0


def _admit(
    waiting: Sequence[Standing], present: int, room: _Room, size: int, rules: Rules
) -> list[tuple[int, int]]:
    """Let those who wait join in the order of their rank; the first without room ends it."""
    admitted: list[tuple[int, int]] = []
    for index in sorted(range(len(waiting)), key=lambda n: waiting[n].rank):
        standing = waiting[index]
        if present == rules.max_batch or not room.prompt:
            break
        spare = max(1, int(rules.watermark * size)) if present else 0
        free = room.free - standing.idle - spare
        take = _fitting(standing, min(standing.needs, room.prompt), free, rules.page_size)
        is_reserving = standing.preemptions >= rules.reserve_after
        if not take or (is_reserving and _missing(standing, rules.page_size) > free):
            break
        admitted.append((index, take))
        room.free -= standing.idle + _new_pages(standing, take, rules.page_size)
        room.prompt -= take
        present += 1
    return admitted


def _missing(standing: Standing, size: int) -> int:
    return -(-standing.total // size) - standing.pages
