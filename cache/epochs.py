"""What was invalidated when, so that an answer begun before never comes back after.

Every entry is stamped with the epoch in which its making began. An
invalidation opens a new epoch and writes down the scope it means: an entry of
that scope with an older stamp is void, wherever and whenever it turns up. That
costs one number an entry, and no search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cache.scope import Labelled, Scope

MAX_SCOPES = 1000
_Matcher = Callable[[bytes, Labelled], bool]


class Epochs:
    """The scopes invalidated so far, and the epoch that each of them opened."""

    def __init__(self) -> None:
        self.now = 0
        self._opened: dict[bytes, int] = {}
        self._recent: list[tuple[int, _Matcher]] = []

    def __len__(self) -> int:
        return len(self._opened)

    def open(self, scope: Scope) -> int:
        """Invalidate a scope; return the epoch that this opens."""
        self.now += 1
        self._opened[scope.dump()] = self.now
        if len(self._opened) > MAX_SCOPES:
            self._opened = {Scope().dump(): self.now}  # says more than it must, never less
        self._sort()
        return self.now

    def adopt(self, now: int, opened: Mapping[bytes, int]) -> list[Scope]:
        """Take over what others have invalidated; return the scopes that are new here."""
        news = [Scope.load(text) for text, at in opened.items() if at > self._opened.get(text, 0)]
        self.now = now
        self._opened = dict(opened)
        self._sort()
        return news

    def admits(self, stamp: int, key: bytes, entry: Labelled) -> bool:
        """Return whether an entry stamped so long ago still stands."""
        if stamp >= self.now:
            return True
        for opened, matches in self._recent:
            if opened <= stamp:
                return True
            if matches(key, entry):
                return False
        return True

    def _sort(self) -> None:
        newest_first = sorted(self._opened.items(), key=lambda item: -item[1])
        self._recent = [(at, Scope.load(text).matcher()) for text, at in newest_first]
