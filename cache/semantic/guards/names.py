"""Names: a question about Paris is not answered with London."""

from __future__ import annotations

import re
from functools import lru_cache

from cache.semantic.guards.dates import CALENDAR
from cache.semantic.guards.gazetteer import ALIASES, NAMES
from cache.semantic.guards.units import UNITS
from cache.semantic.guards.words import EMPTY, Text, is_reworded, listed, stem

_TOKEN = re.compile(
    r"(?i:\b(?:dr|mr|mrs|ms|prof|st)\.)|(?P<word>[^\W\d_]+(?:[-'][^\W\d_]+)*)|(?P<end>[.!?:;\n\"“(]+)"
)
_TITLED = 0.6  # above this share of capitals a text is a headline, and capitals tell nothing
_NEVER = listed("i i'm i've i'd i'll ok okay pm am id atm pin faq tv pc eu")
# Quantities and dates have guards of their own.
_NO_NAMES = _NEVER | EMPTY | UNITS.keys() | CALENDAR


def refuse(asked: Text, stored: Text) -> str | None:
    """Return which name stands in one question only, or None."""
    ours = sorted(name for name in names(asked) if not _stands_in(name, stored))
    theirs = sorted(name for name in names(stored) if not _stands_in(name, asked))
    if not (ours or theirs) or (not (ours and theirs) and is_reworded(asked, stored)):
        return None
    return f"name: {ours[0] if ours else 'none'} / {theirs[0] if theirs else 'none'}"


@lru_cache(maxsize=4096)
def names(text: Text) -> frozenset[str]:
    """Return the names of a text in lower case: capitalised words, and places known as such."""
    known = _known(text)
    parts = {part for name in known for part in name.split()}
    return (_capitalised(text.raw) - parts) | known


def _capitalised(raw: str) -> frozenset[str]:
    found: list[str] = []
    counted = capitals = 0
    starts = True
    for word, end in _TOKEN.findall(raw):
        if not word:
            starts = starts or bool(end)  # a title ends no sentence
            continue
        counted += 1
        if word[0].isupper():
            capitals += 1
            if not starts and word.casefold().partition("'")[0] not in _NO_NAMES:
                found.append(word.casefold().removesuffix("'s"))
        starts = False
    return frozenset(found) if capitals <= _TITLED * counted or counted < 3 else frozenset()


def _known(text: Text) -> frozenset[str]:
    joined = f" {' '.join(text.words)} "
    single = {ALIASES.get(word, word) for word in text.words if word in NAMES or word in ALIASES}
    double = {name for pair in zip(text.words, text.words[1:], strict=False)
              if (name := " ".join(pair)) in NAMES or name in ALIASES}  # fmt: skip
    return frozenset(single | {ALIASES.get(name, name) for name in double if f" {name} " in joined})


def _stands_in(name: str, text: Text) -> bool:
    if name in names(text) or name in text.lower:
        return True
    name = ALIASES.get(name, name)
    return name in names(text) or all(
        stem(part) in text.stems for part in re.split(r"[\s'-]", name)
    )
