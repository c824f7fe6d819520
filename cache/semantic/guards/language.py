"""The language of a question: an answer is expected in it."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from cache.semantic.guards.words import Text

_COMMON = {
    "english": "the is are was what how why when where who do does my your can i you to of and "
    "in for with it this that not have has will would an on please me",
    "spanish": "el los las es son qué que cómo como por cuándo cuando dónde donde quién mi tu "
    "puedo para del una un con está mis cuál cual cuánto hay yo tarjeta quiero de la",
    "french": "le les est sont que quoi comment pourquoi quand où qui mon ma mes ton votre peux je "
    "pour du une un avec dans des ce cette il ne pas vous puis ai de la quel quelle",
    "german": "der die das ist sind was wie warum wann wo wer mein meine dein kann ich für von und "
    "ein eine mit nicht den dem zu auf im es wird haben habe mir",
    "italian": "il gli è sono che cosa come perché quando dove chi mio mia posso io per del della "
    "una un con non la di questo ho quale quanto",
    "portuguese": "o os as é são que como por quando onde quem meu minha posso eu para do da uma "
    "um com não de qual quanto está você",
    "dutch": "de het is zijn wat hoe waarom wanneer waar wie mijn jouw kan ik voor van en een met "
    "niet op te dat naar heb",
}  # fmt: skip
_STOPS = {name: frozenset(words.split()) for name, words in _COMMON.items()}
_OWN_SCRIPT = ("CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "ARABIC", "DEVANAGARI",
               "HEBREW", "GREEK", "THAI")  # fmt: skip
_ENOUGH = 2


def refuse(asked: Text, stored: Text) -> str | None:
    """Return the two languages where both are plain and differ, or None."""
    ours, theirs = language(asked), language(stored)
    if ours == theirs or not ours or not theirs:
        return None
    return f"language: {ours} / {theirs}"


@lru_cache(maxsize=4096)
def language(text: Text) -> str:
    """Return the language, or the script where that tells enough, or nothing if unsure."""
    if not text.lower.isascii():
        scripts = {
            _script(letter) for letter in text.lower if letter.isalpha() and not letter.isascii()
        }
        scripts.discard("")
        if scripts:
            own = ("CJK" if name in ("HIRAGANA", "KATAKANA") else name for name in scripts)
            return min(own).lower()
    words = set(text.words)
    counts = sorted(((len(words & stops), name) for name, stops in _STOPS.items()), reverse=True)
    (most, name), (second, _) = counts[:2]
    return name if most >= _ENOUGH and most > second else ""


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0]
    return name if name in _OWN_SCRIPT else ""
