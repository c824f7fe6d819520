"""One word exchanged in an otherwise equal question: `reset my router`, `reset my phone`."""

from __future__ import annotations

from difflib import SequenceMatcher

from cache.semantic.guards.opposites import OPPOSITES
from cache.semantic.guards.synonyms import SAME
from cache.semantic.guards.words import EMPTY, Text, listed

_LEADS = listed(
    "a an the my your our his her their its this that for in of to with on at from about by into"
)
_FEWEST = 2  # words of content, of which one differs
_AFTER = EMPTY | {"today", "tonight", "tomorrow", "yesterday"}
_SHORT = 3  # letters
_TYPO = 0.72  # likeness of spelling above which two words are taken for one


def refuse(asked: Text, stored: Text) -> str | None:
    """Return the pair of words that alone tells two questions apart, or None."""
    ours, theirs = _order(asked), _order(stored)
    if len(ours) != len(theirs) or len(ours) < _FEWEST:
        return None
    odd = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    if len(odd) != 1 or _alike(*odd[0]):
        return None
    one, other = odd[0]
    if not (_names_a_thing(asked, one) and _names_a_thing(stored, other)):
        return None
    return f"word: {one} / {other}"


def _names_a_thing(text: Text, stem: str) -> bool:
    """Whether a word stands where a noun stands: led in by an article or a preposition, and last.

    Verbs and adjectives have too many words for one thing to refuse them unseen.
    """
    at = text.stems.index(stem)
    leads = any(word in _LEADS for word in text.words[max(0, at - 2) : at])
    return leads and (at + 1 == len(text.words) or text.words[at + 1] in _AFTER)


def _order(text: Text) -> list[str]:
    pairs = zip(text.words, text.stems, strict=True)
    return [s for w, s in pairs if w not in EMPTY and (w.isalpha() or len(w) > _SHORT)]


def _alike(one: str, other: str) -> bool:
    if SAME.get(one, one) == SAME.get(other, other):
        return True
    if not {*OPPOSITES.get(one, ())}.isdisjoint(OPPOSITES.get(other, ())):
        return True  # on one side of one axis
    if not (one.isalpha() and other.isalpha()) or min(len(one), len(other)) < _SHORT:
        return True  # figures have guards of their own
    return SequenceMatcher(None, one, other).ratio() >= _TYPO
