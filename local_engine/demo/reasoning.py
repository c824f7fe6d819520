"""Questions that take more than one step: remainders, totals and short stories."""

from __future__ import annotations

from itertools import accumulate
from random import Random

from local_engine.demo.question import Question

_REMAINDER_WORDINGS = (
    "What is the remainder of {n} divided by {divisor}?",
    "What is {n} mod {divisor}?",
    "Divide {n} by {divisor}. What is left over?",
)
_TOTAL_WORDINGS = ("Add up {items}.", "What is the total of {items}?", "Sum these: {items}.")
_STORIES = (
    "{name} has {start} {thing} and buys {bags} bags of {size}. How many {thing} now?",
    "{bags} bags hold {size} {thing} each, and {start} more lie beside. How many {thing} in all?",
)
_NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Mia", "Sam")
_THINGS = ("apples", "books", "cards", "coins", "eggs", "pens")


def draw_remainder(rng: Random, level: int) -> Question:
    """Draw a remainder by 3 to 9 of a number of 2, 2, 3 or 4 digits."""
    n = rng.randint(*((10, 49), (50, 99), (100, 999), (1000, 9999))[level - 1])
    divisor = rng.choice((3, 4, 6, 7, 8, 9))
    prompt = rng.choice(_REMAINDER_WORDINGS).format(n=n, divisor=divisor)
    working, rest = remainder_working(n, divisor)
    return Question("remainder", level, prompt, str(rest), f"remainder:{n}:{divisor}", working)


def draw_total(rng: Random, level: int) -> Question:
    """Draw `level` + 2 numbers under 100 to add up."""
    numbers = [rng.randint(2, 99) for _ in range(level + 2)]
    listed = ", ".join(map(str, numbers))
    prompt = rng.choice(_TOTAL_WORDINGS).format(items=listed)
    sums = list(accumulate(numbers))
    pairs = zip(sums, numbers[1:], sums[1:], strict=False)
    working = ",".join(f"{before}+{number}={after}" for before, number, after in pairs)
    key = f"total:{','.join(map(str, sorted(numbers)))}"
    return Question("total", level, prompt, str(sums[-1]), key, working)


def draw_story(rng: Random, level: int) -> Question:
    """Draw a story of a product and a sum; bags, their size and the start grow with the level."""
    bags = rng.randint(2, (5, 9, 9, 9)[level - 1])
    size = rng.randint(2, (9, 9, 30, 99)[level - 1])
    start = rng.randint(2, (30, 99, 99, 999)[level - 1])
    prompt = rng.choice(_STORIES).format(
        name=rng.choice(_NAMES), thing=rng.choice(_THINGS), start=start, bags=bags, size=size
    )
    product = bags * size
    working = f"{bags}*{size}={product},{start}+{product}={start + product}"
    key = f"story:{start}:{bags}:{size}"
    return Question("story", level, prompt, str(start + product), key, working)


def remainder_working(n: int, divisor: int) -> tuple[str, int]:
    """Return the steps of a long division that keep the remainder only, and the remainder."""
    steps, rest = [], 0
    for digit in str(n):
        head = 10 * rest + int(digit)
        rest = head % divisor
        steps.append(f"{head}%{divisor}={rest}")
    return ",".join(steps), rest
