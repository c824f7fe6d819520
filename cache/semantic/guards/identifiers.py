"""Code, addresses and quoted strings: what must agree letter by letter."""

from __future__ import annotations

import re
from functools import lru_cache

from cache.semantic.guards.words import Text

_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»]{1,200})[\"”“»]|(?<!\w)'([^']{1,200})'(?!\w)")
_TICKED = re.compile(r"`([^`]+)`")
_CODE = re.compile(
    r"https?://[^\s,;]+|[\w.+-]+@[\w-]+\.[\w.]+"            # addresses
    r"|(?<!\S)--[A-Za-z][\w-]+|(?<!\S)-[A-Za-z](?![\w-])"    # flags
    r"|(?<![\w.])[@#][A-Za-z_]\w+"                          # handles and tags
    r"|\b[A-Za-z]\w+(?:(?:\.|::|->)[A-Za-z_]\w+)+(?:\(\))?"  # dotted names
    r"|\b[A-Za-z]\w*\(\)?"                                  # calls
    r"|\b\w*[a-z0-9]_\w+|\b_\w+|\b[A-Z]\w*_\w+"             # snake and constant case
    r"|\b[a-z]+(?:[A-Z][a-z0-9]+)+\b|\b(?:[A-Z][a-z0-9]+){2,}\b"  # camel case
    r"|(?<![\w/])[~.]{0,2}(?:/[\w.-]+){2,}"                 # paths
    r"|\b\w+\.(?:py|js|ts|go|rs|java|rb|c|h|cpp|cs|sh|json|yaml|yml|toml|txt|csv|md|sql)\b"
    r"|\bv?\d+(?:\.\d+){1,3}(?:[ab]\d+|rc\d+)?(?=[^\w%]|$)(?<=\.\d)(?<=v\d\.\d)"
    r"|\bv\d+(?:\.\d+)*\b|\b\d+\.\d+\.\d+[\w.]*"            # versions
    r"|\b(?=[A-Za-z-]*\d)(?=[\d-]*[A-Za-z])[A-Z0-9]+(?:-[A-Z0-9]+)*\b"  # E1042, XJ-9, SKU77
    r"|(?<=\w)(?:\+\+|\#)(?!\w)"                            # C++, C#
    r"|0x[0-9a-fA-F]+"
)  # fmt: skip
# What every identifier, and every quoted string, holds at least one of.
_HINT = re.compile(r"[`@#_\d/+(:]|\w\.\w|\w[A-Z]|-[A-Za-z>]|[A-Z][a-z0-9]+[A-Z]")
_MARK = re.compile(r"[\"“”„«»']")
_NOTHING: frozenset[str] = frozenset()
_MEASURE = re.compile(r"^\$?\d[\d.,]*(?:[A-Za-z%]{1,3})?$")
_SENTENCE_END = re.compile(r"(?<=[a-z]{2})\.[A-Z][a-z]*$")


def refuse(asked: Text, stored: Text) -> str | None:
    """Return which quoted string or identifier stands in one question only, or None."""
    for kind, ours, theirs in (
        ("quoted", quoted(asked.raw), quoted(stored.raw)),
        ("identifier", identifiers(asked.raw), identifiers(stored.raw)),
    ):
        for odd, text in ((ours - theirs, stored), (theirs - ours, asked)):
            missing = sorted(name for name in odd if not _stands_in(name, text, kind))
            if missing:
                return f"{kind}: {missing[0]!r} stands in one question only"
    return None


@lru_cache(maxsize=4096)
def quoted(raw: str) -> frozenset[str]:
    """Return the quoted strings of a text, in lower case."""
    if _MARK.search(raw) is None:
        return _NOTHING
    found = (double or single for double, single in _QUOTED.findall(raw))
    return frozenset(text.casefold().strip(" .,!?") for text in found)


@lru_cache(maxsize=4096)
def identifiers(raw: str) -> frozenset[str]:
    """Return the identifiers of a text, as written."""
    if _HINT.search(raw) is None:
        return _NOTHING
    names = set(_TICKED.findall(raw))
    for match in _CODE.findall(_QUOTED.sub(" ", raw)):
        name = match.rstrip(".,;:!?(")
        if name and not _MEASURE.match(name) and not _SENTENCE_END.search(name):
            names.add(name.removesuffix("()"))
    return frozenset(names)


def _stands_in(name: str, text: Text, kind: str) -> bool:
    if kind == "quoted":
        return name in text.lower
    # `MasterCard` is a name first; names agree whatever their capitals.
    return name in text.raw or (name.isalpha() and name.casefold() in text.lower.replace(" ", ""))
