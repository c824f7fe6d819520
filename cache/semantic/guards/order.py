"""Direction and comparison: from A to B is not from B to A, nor is A over B B over A."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from cache.semantic.guards.words import EMPTY, Text, listed

_OPPOSED = {"from": frozenset(("to", "into")), "to": frozenset(("from",)),
            "into": frozenset(("from",)), "before": frozenset(("after",)),
            "after": frozenset(("before",)), "above": frozenset(("below",)),
            "below": frozenset(("above",))}  # fmt: skip
_PIVOTS = listed(
    "than to into from over before after instead rather with by as minus divided per under above "
    "below beats beat in on for against without until through via"
)
_ARTICLES = listed("the a an my your our their his her its this that")
_SYMMETRIC = listed("and or vs versus between both plus times")
_REACH = 4  # content words that a preposition governs at most


def refuse(asked: Text, stored: Text) -> str | None:
    """Return what stands the other way round in the two questions, or None."""
    return _roles_differ(asked, stored) or _sides_swapped(asked, stored) or _swapped(asked, stored)


def _roles_differ(asked: Text, stored: Text) -> str | None:
    ours, theirs = roles(asked), roles(stored)
    for word, role in ours.items():
        if theirs.get(word) in _OPPOSED.get(role, ()):
            return f"direction: {role} {word} / {theirs[word]} {word}"
    return None


@lru_cache(maxsize=4096)
def roles(text: Text) -> dict[str, str]:
    """Return the preposition of direction that governs each content word."""
    found: dict[str, str] = {}
    marker, reach = "", 0
    for word, stem in zip(text.words, text.stems, strict=True):
        if word in _OPPOSED:
            marker, reach = word, _REACH
        elif stem not in text.content:
            marker = marker if word in _ARTICLES else ""
        elif marker and reach:
            found.setdefault(stem, marker)
            reach -= 1
    return found


def _sides_swapped(asked: Text, stored: Text) -> str | None:
    """Whether two words have changed sides of a word that both questions turn on."""
    ours, theirs = sides(asked), sides(stored)
    for pivot, (left, right) in ours.items():
        if pivot not in theirs:
            continue
        moved_right, moved_left = left & theirs[pivot][1], right & theirs[pivot][0]
        if moved_right and moved_left and not _SYMMETRIC & set(asked.words):
            one, other = min(moved_right), min(moved_left)
            return f"direction: {one} {pivot} {other} / {other} {pivot} {one}"
    return None


Sides = dict[str, tuple[frozenset[str], frozenset[str]]]


@lru_cache(maxsize=4096)
def sides(text: Text) -> Sides:
    """Return, by pivot, the content words close before and close after its first mention."""
    found: Sides = {}
    for at, word in enumerate(text.words):
        if word in _PIVOTS and word not in found:
            before = _reached(text, range(at - 1, -1, -1))
            after = _reached(text, range(at + 1, len(text.words)))
            found[word] = before - after, after - before
    return found


def _reached(text: Text, places: range) -> frozenset[str]:
    """Return the content words met on the way, up to a word that ends the phrase."""
    found: list[str] = []
    for at in places:
        if text.stems[at] in text.content:
            found.append(text.stems[at])
        elif text.words[at] not in _ARTICLES:
            break
    return frozenset(found[:_REACH])


def _swapped(asked: Text, stored: Text) -> str | None:
    """Whether the same words ask with two of them exchanged: `does A owe B`, `does B owe A`."""
    if len(asked.words) != len(stored.words) or asked.content != stored.content:
        return None
    if asked.words == stored.words or Counter(asked.words) != Counter(stored.words):
        return None
    (empty, full), (their_empty, their_full) = _parted(asked), _parted(stored)
    if not empty or empty != their_empty or full == their_full:
        return None
    places = [at for at, (a, b) in enumerate(zip(asked.words, stored.words, strict=True)) if a != b]
    between = asked.words[places[0] : places[-1] + 1]
    if len(between) < 3 or _SYMMETRIC & set(asked.words):
        return None
    return f"direction: {' '.join(between)} / {' '.join(stored.words[places[0] : places[-1] + 1])}"


def _parted(text: Text) -> tuple[list[str], list[str]]:
    empty = [word for word in text.words if word in EMPTY]
    return empty, [word for word in text.words if word not in EMPTY]
