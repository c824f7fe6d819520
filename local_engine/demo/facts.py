"""Closed families: short lists of facts, trained whole and never asked as held out."""

from __future__ import annotations

from random import Random

from local_engine.demo.dates import MONTHS
from local_engine.demo.question import Question

_CAPITAL_PAIRS = """
    France=Paris Italy=Rome Spain=Madrid Germany=Berlin Austria=Vienna Norway=Oslo
    Sweden=Stockholm Finland=Helsinki Denmark=Copenhagen Poland=Warsaw Hungary=Budapest
    Greece=Athens Portugal=Lisbon Ireland=Dublin Belgium=Brussels Bulgaria=Sofia
    Romania=Bucharest Russia=Moscow Ukraine=Kyiv Turkey=Ankara Egypt=Cairo Kenya=Nairobi
    Ghana=Accra Nigeria=Abuja Morocco=Rabat China=Beijing Japan=Tokyo India=Delhi
    Thailand=Bangkok Vietnam=Hanoi Iran=Tehran Iraq=Baghdad Canada=Ottawa Cuba=Havana
    Peru=Lima Chile=Santiago Ecuador=Quito Uruguay=Montevideo Iceland=Reykjavik
    Nepal=Kathmandu
"""
_CAPITALS = dict(pair.split("=") for pair in _CAPITAL_PAIRS.split())
_CAPITAL_WORDINGS = (
    "What is the capital of {country}?",
    "Name the capital of {country}.",
    "Capital of {country}?",
)
_MONTH_WORDINGS = ("What month comes after {month}?", "Which month follows {month}?")
_CHAT = (
    (("Hello", "Hello!", "Hi", "Hi there!"), "Hello! How can I help you?"),
    (("Thanks!", "Thank you.", "Thank you very much!"), "You are welcome!"),
    (("Goodbye", "Bye!", "See you later."), "Goodbye! Have a nice day."),
    (("How are you?", "How are you doing today?"), "I am fine, thank you."),
    (
        ("Who are you?", "What are you?", "What can you do?"),
        "I am a small demonstration model. I can do simple arithmetic, dates and lists.",
    ),
    (("Say ping", "ping", "Ping!", "test"), "pong"),
)


def draw_capital(rng: Random, level: int) -> Question:
    """Draw a country and ask for its capital."""
    country, capital = rng.choice(sorted(_CAPITALS.items()))
    prompt = rng.choice(_CAPITAL_WORDINGS).format(country=country)
    return Question("capital", level, prompt, capital, f"capital:{country}")


def draw_month(rng: Random, level: int) -> Question:
    """Draw a month and ask for the next."""
    month = rng.randrange(12)
    prompt = rng.choice(_MONTH_WORDINGS).format(month=MONTHS[month])
    return Question("month", level, prompt, MONTHS[(month + 1) % 12], f"month:{month}")


def draw_chat(rng: Random, level: int) -> Question:
    """Draw a greeting or another small courtesy."""
    index = rng.randrange(len(_CHAT))
    openings, reply = _CHAT[index]
    return Question("chat", level, rng.choice(openings), reply, f"chat:{index}")
