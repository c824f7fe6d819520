"""Negation and opposites: `enable` never serves `disable`, nor `can` what `cannot` asked."""

from __future__ import annotations

import re
from functools import lru_cache

from cache.semantic.guards.opposites import OPPOSITES
from cache.semantic.guards.words import Text, is_reworded, listed

# What is negated in form only: asks, hopes and tags.
_FORM_ONLY = re.compile(
    r"\b(?:i do not (?:know|understand|see|remember|get|think|believe|recall|have (?:a|any) "
    r"(?:clue|idea))|i am not (?:sure|certain)|not sure|no idea|no clue|not only|if not|or not"
    r"|whether or not|do not forget|no problem|no matter|not to mention|why not|no one told"
    r"|could not you|can not you|would not you|will not you|do not you|is not (?:it|there|that)"
    r"|are not (?:there|you)|would not mind|do not mind|can not (?:find|figure|seem|remember|wait)"
    r"|could not (?:find|figure)|not (?:very|really) sure|no thanks|no worries|no longer than"
    r"|no more than|no less than|never mind"
    r"|oh no|for no reason|no longer want|is not it|does not it|not yet sure|cannot wait)\b"
)
_NEGATIONS = listed(
    "not no never none nobody nothing nowhere neither nor without hardly cannot except "
    "excluding avoid non"
)
_HIDDEN = listed(
    "fail failed failing fails failure unable declined decline rejected reject refused refuse "
    "denied deny missing lost stolen broken blocked stuck pending waiting wait late delayed "
    "wrong incorrect error problem issue trouble issues problems unsuccessful disabled lack "
    "lacking impossible stop stopped unavailable unless instead absent invalid forgot forget "
    "locked malfunctioning down dead cancelled canceled reverted returned avoid prevent still "
    "yet only except disappeared vanished zero empty unknown unrecognized unfamiliar unexpected "
    "strange"
)
_YES_NO = re.compile(r"^(?:(?:so|but|and|hey|hi|hello) )*(?:is|are|was|were|do|does|did|can|could"
                     r"|will|would|should|has|have) not\b")  # fmt: skip


def refuse(asked: Text, stored: Text) -> str | None:
    """Return which question is turned round against the other, or None."""
    opposed, negated = _opposed(asked, stored), _negated(asked, stored)
    if opposed and negations(asked) % 2 != negations(stored) % 2:
        return None  # `not allowed` asks what `forbidden` asks
    return opposed or negated


def _negated(asked: Text, stored: Text) -> str | None:
    ours, theirs = negations(asked), negations(stored)
    if ours % 2 == theirs % 2 or is_reworded(asked, stored):
        return None
    # `my card was declined` may well ask what `my card does not work` asked.
    plain = stored if ours % 2 else asked
    denied = asked if ours % 2 else stored
    if (_HIDDEN & set(plain.words)) - set(denied.words):
        return None
    return f"negation: {ours} / {theirs}"


@lru_cache(maxsize=4096)
def negations(text: Text) -> int:
    """Return how many words of a question deny, without those that do so in form only."""
    words = _FORM_ONLY.sub(" ", " ".join(text.words))
    words = _YES_NO.sub("", words)  # `isn't it open?` asks what `is it open?` asks
    return sum(word in _NEGATIONS for word in words.split())


def _opposed(asked: Text, stored: Text) -> str | None:
    ours, theirs = _senses(asked), _senses(stored)
    for axis, sense in ours:
        if (axis, -sense) in theirs and (axis, -sense) not in ours and (axis, sense) not in theirs:
            return f"opposite: {_named(asked, axis)} / {_named(stored, axis)}"
    return _prefixed(asked, stored) or _prefixed(stored, asked)


@lru_cache(maxsize=4096)
def _senses(text: Text) -> frozenset[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    before = ""
    for word, stem in zip(text.words, text.stems, strict=True):
        if senses := _senses_of(word, stem):
            turn = -1 if before in ("least", "less") else 1  # `least expensive` is `cheapest`
            found.update((axis, turn * sense) for axis, sense in senses)
        before = word
    return frozenset(found)


def _named(text: Text, axis: int) -> str:
    pairs = zip(text.words, text.stems, strict=True)
    return next(w for w, stem in pairs if any(axis == on for on, _ in _senses_of(w, stem)))


def _senses_of(word: str, stem: str) -> tuple[tuple[int, int], ...]:
    return OPPOSITES.get(word) or OPPOSITES.get(stem, ())


_PREFIXES = ("un", "in", "im", "ir", "il", "dis", "de", "non", "mis", "a")


def _prefixed(one: Text, other: Text) -> str | None:
    """Return the word that the other question holds with a denying prefix."""
    for turned, stem in _turned(other).items():
        if stem in one.content and stem not in other.content and turned not in one.content:
            return f"opposite: {stem} / {turned}"
    return None


@lru_cache(maxsize=4096)
def _turned(text: Text) -> dict[str, str]:
    """Return what the content words would be without a denying prefix, by word."""
    turned = [word for word in text.content if word.startswith(_PREFIXES)]
    return {
        word: word[len(prefix) :]
        for prefix in _PREFIXES
        for word in turned
        if word.startswith(prefix) and len(word) - len(prefix) > 3
    }
