"""Sharing a step's tokens and pages among those that run and those that wait."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from local_engine.scheduler import Plan, Rules, Standing, plan_step

RULES = Rules(max_batch=4, prefill_chunk=16, page_size=4)


def standing(n: int, needs: int = 1, computed: int = 4, **rest: int) -> Standing:
    pages = rest.pop("pages", -(-computed // 4))
    priority = rest.pop("priority", 0)
    own = rest.pop("own", pages)
    return Standing(
        (float(n), n), priority, needs, computed, pages, rest.pop("total", 100), own, **rest
    )


def plan(running: Sequence[Standing], waiting: Sequence[Standing] = (), free: int = 50) -> Plan:
    return plan_step(running, waiting, free, 100, RULES)


def test_nothing_to_do_plans_nothing() -> None:
    assert plan([]) == Plan((), (), ())


def test_decoding_advances_by_one_and_prompts_share_the_chunk_by_rank() -> None:
    found = plan([standing(3, needs=9), standing(1), standing(2, needs=12, computed=0)])

    assert dict(found.takes) == {1: 1, 2: 12, 0: 4}


def test_those_who_wait_join_by_rank_while_there_is_room() -> None:
    waiting = [standing(n, needs=5, computed=0) for n in (9, 7, 8, 6)]
    found = plan([standing(1), standing(2)], waiting)

    assert found.admitted == ((3, 5), (1, 5))


def test_the_first_that_finds_no_pages_is_not_overtaken() -> None:
    waiting = [standing(5, needs=40, computed=0), standing(6, needs=1, computed=0)]

    assert plan([standing(1)], waiting, free=1).admitted == ()
    assert plan([standing(1)], waiting, free=3).admitted == ((0, 4),)


def test_found_pages_that_nobody_uses_are_not_counted_as_free_twice() -> None:
    waiting = [standing(5, needs=4, computed=8, pages=2, idle=2)]

    assert plan([], waiting, free=2).admitted == ()
    assert plan([], waiting, free=3).admitted == ((0, 4),)


def test_where_pages_lack_the_last_gives_its_own_back() -> None:
    running = [standing(2, computed=8), standing(1, computed=8), standing(3, computed=8)]
    found = plan(running, [standing(4, computed=0)], free=0)

    assert found.preempted == (2,)
    assert dict(found.takes) == {1: 1, 0: 1}
    assert found.admitted == ()


def test_a_chunk_takes_the_free_pages_before_anyone_is_put_back() -> None:
    found = plan([standing(1, needs=12, computed=4), standing(2, computed=5)], free=2)

    assert (found.preempted, dict(found.takes)) == ((), {0: 8, 1: 1})


def test_the_last_waits_where_only_better_ranks_hold_pages() -> None:
    found = plan([standing(1, computed=5), standing(2, computed=4)], free=0)

    assert (found.preempted, dict(found.takes)) == ((), {0: 1})


def test_writing_on_a_shared_page_needs_another() -> None:
    shared = standing(1, computed=5, shared=1)

    assert plan([shared], free=0).takes == ()
    assert plan([shared], free=1).takes == ((0, 1),)


def test_priority_displaces_the_last_of_a_full_batch_but_not_one_of_its_own_rank() -> None:
    running = [standing(n) for n in (10, 11, 12, 13)]
    urgent, usual = standing(8, computed=0, priority=1), standing(9, computed=0)

    assert plan(running, [urgent]).preempted == (3,)
    assert plan(running, [urgent]).admitted == ((0, 1),)
    assert plan(running, [usual]).preempted == ()


def test_one_that_was_put_back_twice_returns_with_room_for_all_of_it() -> None:
    again = standing(5, needs=8, computed=0, total=40, preemptions=2)

    assert plan([standing(1, computed=5)], [again], free=10).admitted == ()
    assert plan([standing(1, computed=5)], [again], free=11).admitted == ((0, 8),)


STANDINGS = st.builds(
    lambda rank, needs, computed, spare, own, shared, idle, priority: Standing(
        (float(rank), rank),
        priority,
        needs,
        computed,
        -(-computed // 4) + spare,
        10**6,
        min(own, -(-computed // 4)),
        shared,
        idle,
    ),
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 1),
    st.integers(0, 10),
    st.integers(0, 1),
    st.integers(0, 3),
    st.integers(0, 2),
)


@given(
    running=st.lists(STANDINGS, max_size=4, unique_by=lambda s: s.rank),
    waiting=st.lists(STANDINGS, max_size=4, unique_by=lambda s: s.rank),
    free=st.integers(0, 30),
)
def test_no_plan_spends_more_than_there_is(
    running: list[Standing], waiting: list[Standing], free: int
) -> None:
    found = plan(running, waiting, free)

    takes = [(running[n], take) for n, take in found.takes]
    joining = [(waiting[n], take) for n, take in found.admitted]
    assert all(0 < take <= s.needs for s, take in takes + joining)
    assert not {n for n, _ in found.takes} & set(found.preempted)
    assert len(running) - len(found.preempted) + len(joining) <= RULES.max_batch
    assert sum(take for _, take in takes + joining) <= RULES.token_budget
    needed = sum(
        max(0, -(-(s.computed + take) // 4) - s.pages) + s.shared for s, take in takes + joining
    )
    idle = sum(s.idle for s, _ in joining)
    assert needed + idle <= free + sum(running[n].own for n in found.preempted)
    if found.preempted and takes:
        assert max(s.rank for s, _ in takes) < min(running[n].rank for n in found.preempted)
