"""A question as the guards read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SUFFIXES = ("ings", "ing", "edly", "ed", "ies", "es", "s", "ly", "er", "ers")
_STRAIGHT = {0x2018: "'", 0x2019: "'"}
_KEPT = 4  # letters a stem keeps at least, so that `king` and `kin` stay apart

_CONTRACTED = {
    "can't": "can not", "cannot": "can not", "won't": "will not", "shan't": "shall not",
    "cant": "can not", "wont": "will not", "dont": "do not", "doesnt": "does not",
    "didnt": "did not", "isnt": "is not", "arent": "are not", "wasnt": "was not",
    "werent": "were not", "hasnt": "has not", "havent": "have not", "hadnt": "had not",
    "couldnt": "could not", "shouldnt": "should not", "wouldnt": "would not",
    "ain't": "is not", "aint": "is not", "mustnt": "must not",
    "let's": "let us", "i'm": "i am", "im": "i am", "what's": "what is", "whats": "what is",
    "where's": "where is", "who's": "who is", "how's": "how is", "it's": "it is",
    "that's": "that is", "there's": "there is", "when's": "when is",
    "gonna": "going to", "wanna": "want to", "gotta": "have to",
}  # fmt: skip
_ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}


def listed(words: str) -> frozenset[str]:
    """Return the words of a table written as running text."""
    return frozenset(words.split())


EMPTY = listed(
    "a an the this that these those i me my mine we us our you your it its he him his she her "
    "they them their am is are was were be been being do does did have has had can could will "
    "would shall should may might must to of in on at for with by from as and or but if so than "
    "then there here please just also too very really actually hi hello hey thanks thank "
    "what which who whom whose when where why how much many long some any all about into out up "
    "over under again get got getting want wanted like need tell know let going go make made "
    "not no yes ok okay one another other still now yet some"
)
"""Words that carry no topic of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """One question: as written, in lower case, and as words with contractions written out.

    Compared by identity, so that what is read from it can be kept at the price of a pointer.
    """

    raw: str
    lower: str
    words: tuple[str, ...]
    stems: tuple[str, ...]
    content: frozenset[str]


@lru_cache(maxsize=4096)
def read(raw: str) -> Text:
    """Return the question taken apart. The same text is taken apart once."""
    straight = raw.translate(_STRAIGHT)
    lower = straight.casefold()
    words = tuple(_words(lower))
    stems = tuple(map(stem, words))
    content = frozenset([s for w, s in zip(words, stems, strict=True) if w not in EMPTY])
    return Text(straight, lower, words, stems, content)


def _words(lower: str) -> list[str]:
    found: list[str] = []
    for word in _WORD.findall(lower):
        if "'" in word or word in _CONTRACTED:
            found += _written_out(word).split()
        else:
            found.append(word)
    return found


def _written_out(word: str) -> str:
    whole = _CONTRACTED.get(word)
    if whole is not None:
        return whole
    for ending, meaning in _ENDINGS.items():
        if word.endswith(ending):
            return f"{word[: -len(ending)]} {meaning}"
    return word.partition("'")[0]


def is_reworded(one: Text, other: Text) -> bool:
    """Whether two questions differ in more words than a single slot would explain.

    What only one of them mentions then tells little: one that is told at length
    names a day or a sum by the way.
    """
    return len(one.content ^ other.content) > _SLOT


_SLOT = 3


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """Return a word without its commonest English endings; numbers stay as they are."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _KEPT - (suffix == "s"):
            word = word[: -len(suffix)]
            break
    if len(word) > _KEPT and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word.removesuffix("e")
