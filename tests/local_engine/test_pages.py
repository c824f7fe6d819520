"""Pages handed out, shared, found again and given back: none lost, none doubled."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local_engine.pages import OutOfPages, PagePool, PageTable
from local_engine.prefix import PrefixHash


def taken(pool: PagePool, count: int, expected: int = 1) -> PageTable:
    table = PageTable(expected=expected)
    pool.extend(table, count)
    return table


def test_two_that_grow_by_turns_stay_in_one_piece_each() -> None:
    pool = PagePool(20)
    tables = [taken(pool, 1, expected=6) for _ in range(3)]
    for _ in range(5):
        for table in tables:
            pool.extend(table, 1)

    assert [t.unbroken for t in tables] == [0, 0, 0]
    assert [t.pages[0] for t in tables] == [1, 7, 13]


def test_room_held_open_is_given_to_others_before_anyone_goes_without() -> None:
    pool = PagePool(6)
    first, second = taken(pool, 1, expected=6), PageTable()
    pool.extend(second, 5)
    with pytest.raises(OutOfPages):
        pool.extend(first, 1)

    assert pool.available == 0
    pool.release(second)
    pool.extend(first, 5)
    assert sorted(first.pages) == [1, 2, 3, 4, 5, 6]


def test_a_released_prefix_is_found_until_its_pages_are_needed_tail_first() -> None:
    pool = PagePool(4)
    table = taken(pool, 3)
    for page, key in zip(table.pages, (b"a", b"b", b"c"), strict=True):
        pool.publish(page, key)
    pages = list(table.pages)
    pool.release(table)

    assert (pool.available, pool.kept) == (4, 3)
    assert pool.find([b"a", b"b", b"c", b"d"]) == pages
    other = taken(pool, 2)
    assert pool.find([b"a", b"b", b"c"]) == pages[:2]
    found = PageTable()
    pool.share(found, pool.find([b"a", b"x"]))
    assert found.pages == pages[:1]
    pool.release(other)
    pool.release(found)


def test_a_shared_page_is_left_to_the_others_by_whoever_writes() -> None:
    pool = PagePool(5)
    table = taken(pool, 2)
    child = pool.fork(table, 2)

    assert pool.own(child, 1) == (table.pages[1], child.pages[1])
    assert pool.own(child, 1) is None
    assert pool.own(table, 1) is None
    assert child.pages[0] == table.pages[0]


def test_a_page_written_on_again_is_no_longer_found() -> None:
    pool = PagePool(2)
    table = taken(pool, 1)
    pool.publish(table.pages[0], b"a")
    pool.own(table, 0)

    assert pool.find([b"a"]) == []


def test_what_nobody_looks_at_any_more_is_given_back_early() -> None:
    pool = PagePool(4)
    table = taken(pool, 4)
    last = table.pages[3]
    pool.trim(table, 3)
    pool.trim(table, 3)

    assert table.pages == [0, 0, 0, last]
    assert table.unbroken == 3
    assert pool.available == 3


def test_a_prefix_has_another_name_for_another_tenant_or_adapter() -> None:
    hashes = PrefixHash(4)
    names = []
    for tenant, adapter in (("a", ""), ("b", ""), ("a", "x"), ("", "ax"), ("ax", "")):
        chain = [hashes.start(tenant, adapter)]
        hashes.extend(chain, range(9))
        names.append(tuple(chain))
    again = [hashes.start("a", "")]
    hashes.extend(again, range(4))
    hashes.extend(again, range(9))

    assert len({c for chain in names for c in chain}) == 15
    assert tuple(again) == names[0]


class Pool(RuleBasedStateMachine):
    """Everything that lanes do with a small pool, against a plain count of holders."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(12)
        self.tables: list[PageTable] = []

    def any_table(self, data: st.DataObject) -> PageTable:
        return data.draw(st.sampled_from(self.tables))

    @rule(count=st.integers(1, 4), expected=st.integers(1, 8))
    def start(self, count: int, expected: int) -> None:
        table = PageTable(expected=expected)
        self.tables.append(table)
        self.grow(table, count)

    def grow(self, table: PageTable, count: int) -> None:
        free, before = self.pool.available, list(table.pages)
        if count > free:
            with pytest.raises(OutOfPages):
                self.pool.extend(table, count)
            assert table.pages == before
            return
        self.pool.extend(table, count)
        assert self.pool.available == free - count

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), count=st.integers(1, 3))
    def extend(self, data: st.DataObject, count: int) -> None:
        self.grow(self.any_table(data), count)

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), letters=st.text("ab", min_size=1, max_size=4))
    def publish(self, data: st.DataObject, letters: str) -> None:
        table = self.any_table(data)
        for index, page in enumerate(table.pages[: len(letters)]):
            if page:
                self.pool.publish(page, letters[: index + 1].encode())

    @rule(letters=st.text("ab", min_size=1, max_size=4))
    def share(self, letters: str) -> None:
        keys = [letters[: n + 1].encode() for n in range(len(letters))]
        table = PageTable()
        self.pool.share(table, self.pool.find(keys))
        self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        table = self.any_table(data)
        if 0 not in table.pages:
            self.tables.append(self.pool.fork(table, len(table.pages)))

    @precondition(lambda self: any(t.pages and t.pages[-1] for t in self.tables))
    @rule(data=st.data())
    def own(self, data: st.DataObject) -> None:
        table = data.draw(st.sampled_from([t for t in self.tables if t.pages and t.pages[-1]]))
        if self.pool.available:
            self.pool.own(table, len(table.pages) - 1)
            assert self.pool.references(table.pages[-1]) == 1

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), before=st.integers(0, 3))
    def trim(self, data: st.DataObject, before: int) -> None:
        table = self.any_table(data)
        self.pool.trim(table, min(before, len(table.pages)))

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), spoils=st.booleans())
    def release(self, data: st.DataObject, spoils: bool) -> None:
        table = self.any_table(data)
        if spoils:
            self.pool.forget([p for p in table.pages if p])
        self.pool.release(table)
        self.tables.remove(table)

    @rule()
    def forget_all(self) -> None:
        self.pool.forget_all()

    @invariant()
    def every_page_is_somewhere_once(self) -> None:
        pool = self.pool
        held = [p for t in self.tables for p in t.pages if p]
        assert [pool.references(p) for p in range(1, 13)] == [held.count(p) for p in range(1, 13)]
        used, kept = set(held), set(pool._kept)
        free = {p for p in range(13) if pool._free[p]}
        open_ = {p for p in range(13) if pool._held[p]}
        assert sorted([*used, *kept, *free, *open_]) == list(range(1, 13))
        assert pool.available == 12 - len(used)
        assert pool._found == {key: page for page, key in pool._keys.items()}
        assert kept <= set(pool._keys)
        for table in self.tables:
            tail = table.pages[table.unbroken :]
            assert tail == [*range(tail[0], tail[0] + len(tail))] if tail else True


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase
