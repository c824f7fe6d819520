"""Streams of further domains, composed from phrasings that ship beside this file.

They share no sentence with the forms that the guards were written against, and what
a question asks for includes the values of its slots: another country, another answer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from bench.cache_streams import Stream
from bench.cache_vectors import Vectors

_FORMS = Path(__file__).parent / "data" / "domains.json"


class Domain(TypedDict):
    """What people ask in one domain: intents with their phrasings, and what may stand around."""

    openers: Sequence[str]
    closers: Sequence[str]
    slots: Mapping[str, Sequence[str]]
    intents: Mapping[str, Sequence[str]]


def domains() -> Mapping[str, Domain]:
    """Return the domains by name."""
    found: Mapping[str, Domain] = json.loads(_FORMS.read_text("utf-8"))
    return found


def domain_stream(name: str, vectors: Vectors, *, size: int = 1500, seed: int = 11) -> Stream:
    """Return a domain's questions in the order in which they are drawn, none of them twice.

    Some intents are asked more often than others, as one over their rank.
    """
    domain = domains()[name]
    chance = random.Random(f"{seed} {name}")
    intents = list(domain["intents"])
    chance.shuffle(intents)
    often = [1 / (rank + 3) for rank in range(len(intents))]
    asked: dict[str, str] = {}
    for _ in range(size * 4):
        if len(asked) == size:
            break
        [intent] = chance.choices(intents, often)
        text, answer = _question(domain, intent, chance)
        asked.setdefault(text, answer)
    texts = list(asked)
    return Stream(name, texts, list(asked.values()), vectors.of(f"{name} {seed}", texts))


def _question(domain: Domain, intent: str, chance: random.Random) -> tuple[str, str]:
    values = {name: chance.choice(choices) for name, choices in domain["slots"].items()}
    words = chance.choice(domain["intents"][intent]).format(**values)
    text = f"{chance.choice(domain['openers'])}{words}{chance.choice(domain['closers'])}"
    return _typed(text, chance), intent.format(**values)


def _typed(text: str, chance: random.Random) -> str:
    """Return a text as somebody in a hurry may type it."""
    if chance.random() < 0.15:
        at = chance.randrange(1, max(2, len(text) - 1))
        text = text[:at] + text[at + 1 :]
    if chance.random() < 0.4:
        text = text[0].upper() + text[1:]
    return text + ("?" if chance.random() < 0.35 else "")
