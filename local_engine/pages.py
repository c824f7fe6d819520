"""Which page belongs to whom: references, prefixes that can be found again, free places.

Pure bookkeeping; the values lie in `kv.PagedKv`. A page is in one of four states: in use
(counted references), kept (nobody's, but its content is known and can be found), held
open for the sequence before it, or free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class PageTable:
    """The pages of one sequence in order; 0 stands for one given back early.

    From index `unbroken` on they lie one after another. `room` is the stretch of the
    pool held open for it, so that what it writes next to each other stays so.
    """

    pages: list[int] = field(default_factory=list)
    unbroken: int = 0
    room: range = range(0)
    expected: int = 1

    def append(self, page: int) -> None:
        """Add a page at the end."""
        if self.pages and page != self.pages[-1] + 1:
            self.unbroken = len(self.pages)
        self.pages.append(page)

    def replace(self, index: int, page: int) -> None:
        """Put another page at an index."""
        self.pages[index] = page
        self.unbroken = _unbroken(self.pages)


class OutOfPages(Exception):
    """Say that every page is in use."""


class PagePool:
    """Pages 1 to `size`, handed out, shared, found again by content, and given back."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._references = [0] * (size + 1)
        self._keys: dict[int, bytes] = {}
        self._found: dict[bytes, int] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()
        # One byte a page, so that a stretch is found by searching bytes.
        self._free = bytearray(b"\0" + b"\1" * size)
        self._held = bytearray(size + 1)
        self._used = 0

    @property
    def available(self) -> int:
        """Return how many pages nobody refers to."""
        return self.size - self._used

    @property
    def kept(self) -> int:
        """Return how many pages nobody refers to, but whose content can be found."""
        return len(self._kept)

    def references(self, page: int) -> int:
        """Return how many tables hold a page."""
        return self._references[page]

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """Return the pages that hold the longest known beginning of a chain of keys."""
        pages = []
        for key in keys:
            page = self._found.get(key)
            if page is None:
                break
            pages.append(page)
        return pages

    def share(self, table: PageTable, pages: Iterable[int]) -> None:
        """Add pages with known content to a table."""
        for page in pages:
            self._refer(page)
            table.append(page)

    def extend(self, table: PageTable, count: int) -> None:
        """Add `count` pages to write on; raises `OutOfPages`, adding none."""
        if count > self.available:
            raise OutOfPages(f"{count} pages are needed, {self.available} are free")
        if count and not table.room:
            self._hold(table, max(count, table.expected - len(table.pages)))
        for _ in range(count):
            page = self._next(table)
            self._refer(page)
            table.append(page)

    def fork(self, table: PageTable, pages: int) -> PageTable:
        """Return a table of the first pages of another, shared until written on."""
        child = PageTable(expected=table.expected)
        self.share(child, table.pages[:pages])
        return child

    def own(self, table: PageTable, index: int) -> tuple[int, int] | None:
        """Make a page writable; return (old, new) where others hold it and it must be copied."""
        old = table.pages[index]
        if self._references[old] == 1:
            self.forget((old,))
            return None
        if not self.available:
            raise OutOfPages("one page is needed to copy on, none is free")
        new = self._next(table)
        self._refer(new)
        table.replace(index, new)
        self._unrefer(old)
        return old, new

    def publish(self, page: int, key: bytes) -> None:
        """Let a full page be found by the key of its content; the first one stays."""
        if key not in self._found and page not in self._keys:
            self._found[key] = page
            self._keys[page] = key

    def trim(self, table: PageTable, before: int) -> None:
        """Give back the pages before an index that no layer looks at any more."""
        for index in range(before - 1, -1, -1):
            page = table.pages[index]
            if not page:
                break
            table.pages[index] = 0
            self._unrefer(page)
        table.unbroken = max(table.unbroken, min(before, len(table.pages)))

    def release(self, table: PageTable) -> None:
        """Give back all pages, the last first, so that a chain's tail is lost before its head."""
        for page in reversed(table.pages):
            if page:
                self._unrefer(page)
        for page in table.room:
            self._held[page] = 0
            if not self._references[page] and page not in self._keys:
                self._free[page] = 1
        table.pages, table.room, table.unbroken = [], range(0), 0

    def forget(self, pages: Iterable[int]) -> list[int]:
        """Let these pages never be found again; return those that one table alone holds."""
        own = []
        for page in pages:
            key = self._keys.pop(page, None)
            if key is not None:
                del self._found[key]
            if self._references[page] == 1:
                own.append(page)
        return own

    def forget_all(self) -> None:
        """Let no page be found again."""
        for page in self._kept:
            self._free[page] = 1
        self._kept.clear()
        self._keys.clear()
        self._found.clear()

    def _hold(self, table: PageTable, count: int) -> None:
        """Hold open the first free stretch of so many pages for a table, if there is one."""
        after = table.pages[-1] + 1 if table.pages else 0
        if after and self._free[after : after + count] == b"\1" * count:
            start = after
        else:
            start = self._free.find(b"\1" * count)
        if start < 0:
            return
        table.room = range(start, start + count)
        self._free[start : start + count] = bytes(count)
        self._held[start : start + count] = b"\1" * count

    def _next(self, table: PageTable) -> int:
        """Choose a page nobody refers to: next to the last, free, held for others, oldest kept."""
        after = table.pages[-1] + 1 if table.pages else table.room.start
        if after in table.room and self._held[after]:
            return after
        if table.room and self._held[table.room.start]:
            return table.room.start
        page = self._free.find(1)
        if page < 0:
            page = self._held.rfind(1)
        return page if page > 0 else self._evict()

    def _evict(self) -> int:
        """Forget what the longest unused kept page holds, and return it."""
        page, _ = self._kept.popitem(last=False)
        del self._found[self._keys.pop(page)]
        return page

    def _refer(self, page: int) -> None:
        if not self._references[page]:
            self._used += 1
            self._free[page] = self._held[page] = 0
            if page in self._kept:
                del self._kept[page]
        self._references[page] += 1

    def _unrefer(self, page: int) -> None:
        self._references[page] -= 1
        if self._references[page]:
            return
        self._used -= 1
        if page in self._keys:
            self._kept[page] = None
        else:
            self._free[page] = 1


def _unbroken(pages: Sequence[int]) -> int:
    for index in range(len(pages) - 1, 0, -1):
        if pages[index] != pages[index - 1] + 1:
            return index
    return 0
