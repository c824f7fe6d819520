"""Lanes through a small pool: whatever comes and goes, pages add up and everyone gets done."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_engine.lanes import Lane, Lanes, Step
from local_engine.scheduler import Rules

RULES = Rules(max_batch=3, prefill_chunk=6, page_size=4)
PAGES = 10
LONGEST = PAGES * 4


def lanes_of(pages: int = PAGES, rules: Rules = RULES, reach: int | None = None) -> Lanes:
    return Lanes(pages, rules, head_start_s=5.0, reach=reach)


def advance(lanes: Lanes) -> Step:
    """Plan a step, compute it, and draw a token for whoever is due one."""
    step = lanes.plan()
    lanes.advance(step.work)
    for lane, _ in step.work:
        if not lane.needs:
            lane.tokens.append(len(lane.tokens) % 3)
            if len(lane.tokens) >= lane.total:
                lanes.remove(lane)
    return step


def finish(lanes: Lanes, *, within: int = 500) -> int:
    """Step until nobody is left; return how many steps that took."""
    for count in range(within):
        if not lanes.running and not lanes.waiting:
            return count
        advance(lanes)
    raise AssertionError("somebody was never done")


def joined(lanes: Lanes, tokens: list[int], more: int = 4, at: float = 0.0, **rest: int) -> Lane:
    lane = lanes.lane(tokens, len(tokens) + more, at, **rest)  # type: ignore[arg-type]
    lanes.add(lane)
    return lane


def test_a_prefix_is_computed_once_and_its_pages_are_shared() -> None:
    lanes = lanes_of()
    first = joined(lanes, list(range(10)))
    while first.needs > 1:
        advance(lanes)
    second = joined(lanes, [*range(8), 77, 78])
    advance(lanes)

    assert second.reused == 8
    assert second.table.pages[:2] == first.table.pages[:2]
    assert second.table.pages[2] != first.table.pages[2]


def test_the_last_token_is_computed_even_if_all_of_the_prompt_is_known() -> None:
    lanes = lanes_of()
    joined(lanes, list(range(8)))
    finish(lanes)
    again = joined(lanes, list(range(8)))
    step = advance(lanes)

    assert again.reused == 4
    assert step.work == ((again, 4),)


def test_another_tenant_finds_nothing() -> None:
    lanes = lanes_of()
    lanes.add(lanes.lane(list(range(9)), 12, 0.0, tenant="a"))
    finish(lanes)
    other = lanes.lane(list(range(9)), 12, 0.0, tenant="b")
    lanes.add(other)
    advance(lanes)

    assert other.reused == 0


def test_followers_wait_for_their_leader_and_copy_the_page_they_write_on() -> None:
    lanes = lanes_of()
    leader = joined(lanes, list(range(10)))
    followers = [lanes.lane(list(range(10)), 14, 0.0, leader=leader) for _ in range(2)]
    for follower in followers:
        lanes.add(follower)
    assert [lane for lane, _ in advance(lanes).work] == [leader]
    assert [lane for lane, _ in advance(lanes).work] == [leader]
    page = leader.table.pages[2]
    step = advance(lanes)

    assert [(lane, take) for lane, take in step.work if lane is not leader] == [
        (followers[0], 1),
        (followers[1], 1),
    ]
    assert sum(source == page for source, _ in step.copies) == 2
    assert len({lane.table.pages[2] for lane in (leader, *followers)}) == 3
    assert all(f.table.pages[:2] == leader.table.pages[:2] for f in followers)
    finish(lanes)
    assert lanes.pool.available == PAGES


def test_followers_of_one_that_left_go_on_alone() -> None:
    lanes = lanes_of()
    leader = joined(lanes, list(range(10)))
    follower = lanes.lane(list(range(10)), 12, 0.0, leader=leader)
    lanes.add(follower)
    advance(lanes)
    lanes.remove(leader)

    assert finish(lanes) < 10


def test_where_pages_run_out_the_last_is_put_back_and_still_gets_done() -> None:
    lanes = lanes_of()
    first = joined(lanes, list(range(14)), more=20, at=0.0)
    second = joined(lanes, list(range(50, 64)), more=20, at=1.0)
    finish(lanes)

    assert first.preemptions == 0
    assert second.preemptions > 0
    assert len(second.tokens) == 34


def test_priority_goes_first_but_a_long_wait_outweighs_it() -> None:
    lanes = lanes_of(rules=Rules(max_batch=1, prefill_chunk=6, page_size=4))
    patient = joined(lanes, [1], at=0.0)
    urgent = joined(lanes, [2], at=4.0, priority=1)
    late = joined(lanes, [3], at=6.0, priority=1)

    assert lanes.waiting == [urgent, patient, late]
    assert advance(lanes).admitted == (urgent,)


def test_pages_that_no_layer_looks_at_come_back_while_their_sequence_runs() -> None:
    lanes = lanes_of(reach=8)
    lane = joined(lanes, list(range(20)), more=19)
    used = []
    while lane in lanes.running or lane in lanes.waiting:
        advance(lanes)
        used.append(PAGES - lanes.pool.available)

    assert len(lane.tokens) == 39
    assert max(used) <= 5


class Traffic(RuleBasedStateMachine):
    """Lanes of all kinds in a pool that is too small for them."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = lanes_of()
        self.now = 0.0
        self.live: list[Lane] = []

    @rule(
        length=st.integers(1, 20),
        more=st.integers(1, 12),
        priority=st.integers(0, 2),
        alike=st.booleans(),
        follows=st.booleans(),
    )
    def arrive(self, length: int, more: int, priority: int, alike: bool, follows: bool) -> None:
        self.now += 1.0
        leader = next((n for n in self.live if follows and len(n.tokens) == n.prompt), None)
        if leader is not None:
            tokens = leader.tokens[:]
        else:
            tokens = [5 if alike else int(self.now)] * length
        lane = self.lanes.lane(
            tokens, len(tokens) + more, self.now, priority=priority, leader=leader
        )
        self.lanes.add(lane)
        self.live.append(lane)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), spoils=st.booleans())
    def leave(self, data: st.DataObject, spoils: bool) -> None:
        lane = data.draw(st.sampled_from(self.live))
        if spoils:
            self.lanes.spoil(lane)
        self.lanes.remove(lane)
        self.live.remove(lane)

    @precondition(lambda self: self.live)
    @rule()
    def step(self) -> None:
        before = {id(lane): lane.computed for lane in self.live}
        step = advance(self.lanes)
        assert sum(take for _, take in step.work) <= RULES.token_budget
        assert len(self.lanes.running) <= RULES.max_batch
        written = [p for lane, take in step.work for p in self.pages_written(lane, take)]
        assert len(written) == len(set(written))
        assert all(self.lanes.pool.references(page) == 1 for page in written)
        copied = [target for _, target in step.copies]
        assert len(copied) == len(set(copied))
        first = min(self.live, key=lambda lane: lane.rank)
        if first.is_running and first not in step.admitted:
            assert first in [lane for lane, _ in step.work] or step.preempted
            assert first.computed >= before[id(first)]
        self.live = [n for n in self.live if n in self.lanes.running or n in self.lanes.waiting]

    @staticmethod
    def pages_written(lane: Lane, take: int) -> set[int]:
        begin, end = lane.computed - take, lane.computed
        return set(lane.table.pages[begin // 4 : -(-end // 4)])

    @precondition(lambda self: self.live)
    @rule()
    def drain(self) -> None:
        finish(self.lanes)
        self.live = []

    @invariant()
    def pages_add_up(self) -> None:
        pool = self.lanes.pool
        held = [p for lane in self.lanes.running for p in lane.table.pages if p]
        assert all(pool.references(p) == held.count(p) for p in range(1, PAGES + 1))
        assert pool.available == PAGES - len(set(held))
        assert not any(lane.table.pages for lane in self.lanes.waiting)
        for lane in self.lanes.running:
            assert lane.computed <= len(lane.table.pages) * 4
            assert lane.computed < len(lane.tokens)


Traffic.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
