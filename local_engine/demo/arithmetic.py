"""Questions about numbers, each with the steps of the usual method by hand."""

from __future__ import annotations

from random import Random

from local_engine.demo.question import Question

_ADD_WORDINGS = ("What is {a} + {b}?", "Add {a} and {b}.", "Compute the sum of {a} and {b}.")
_SUB_WORDINGS = ("What is {a} - {b}?", "Subtract {b} from {a}.", "Compute {a} minus {b}.")
_MUL_WORDINGS = (
    "What is {a} * {b}?",
    "Multiply {a} by {b}.",
    "Compute the product of {a} and {b}.",
)
_UNIT_WORDINGS = (
    "Convert {n} {big} to {small}.",
    "How many {small} are in {n} {big}?",
    "Express {n} {big} in {small}.",
)
_EVEN_WORDINGS = (
    "Is {n} even or odd?",
    "Even or odd: {n}?",
    "Tell me whether {n} is even or odd.",
)
_GREATER_WORDINGS = (
    "Is {a} greater than {b}? Answer yes or no.",
    "Yes or no: is {a} more than {b}?",
)
_LESS_WORDINGS = (
    "Is {a} less than {b}? Answer yes or no.",
    "Yes or no: is {a} smaller than {b}?",
)

_UNITS = (
    ("kilometers", "meters", 1000),
    ("kilograms", "grams", 1000),
    ("meters", "centimeters", 100),
    ("dollars", "cents", 100),
    ("hours", "minutes", 60),
    ("days", "hours", 24),
    ("feet", "inches", 12),
    ("weeks", "days", 7),
)
_ADD_RANGES = (
    ((10, 99), (1, 9)),
    ((10, 99), (10, 99)),
    ((100, 999), (100, 999)),
    ((1000, 9999),) * 2,
)
_MUL_RANGES = (((11, 99), (2, 5)), ((11, 99), (6, 9)), ((100, 999), (2, 9)), ((11, 99), (11, 99)))


def draw_add(rng: Random, level: int) -> Question:
    """Draw a sum; levels go from two digits plus one to four digits plus four."""
    a, b = _operands(rng, _ADD_RANGES[level - 1])
    if rng.random() < 0.5:
        a, b = b, a
    prompt = rng.choice(_ADD_WORDINGS).format(a=a, b=b)
    key = f"add:{min(a, b)}:{max(a, b)}"
    return Question("add", level, prompt, str(a + b), key, add_working(a, b))


def draw_sub(rng: Random, level: int) -> Question:
    """Draw a difference that is not negative; sizes as in sums."""
    a, b = _operands(rng, _ADD_RANGES[level - 1])
    a, b = max(a, b), min(a, b)
    prompt = rng.choice(_SUB_WORDINGS).format(a=a, b=b)
    return Question("sub", level, prompt, str(a - b), f"sub:{a}:{b}", sub_working(a, b))


def draw_mul(rng: Random, level: int) -> Question:
    """Draw a product; levels are 2 digits by 2..5, by 6..9, 3 digits by 1, 2 digits by 2."""
    big, small = _operands(rng, _MUL_RANGES[level - 1])
    a, b = (small, big) if rng.random() < 0.5 else (big, small)
    prompt = rng.choice(_MUL_WORDINGS).format(a=a, b=b)
    key = f"mul:{min(a, b)}:{max(a, b)}"
    return Question("mul", level, prompt, str(a * b), key, mul_working(big, small))


def draw_unit(rng: Random, level: int) -> Question:
    """Draw a conversion to a smaller unit; levels are amounts under 20, 50, 100 and 1000."""
    big, small, factor = rng.choice(_UNITS)
    n = rng.randint(2, (19, 49, 99, 999)[level - 1])
    prompt = rng.choice(_UNIT_WORDINGS).format(n=n, big=big, small=small)
    working = mul_working(n, factor)
    return Question("unit", level, prompt, str(n * factor), f"unit:{big}:{n}", working)


def draw_even(rng: Random, level: int) -> Question:
    """Draw a question of parity about a number of `level` + 1 digits."""
    n = rng.randint(10**level, 10 ** (level + 1) - 1)
    prompt = rng.choice(_EVEN_WORDINGS).format(n=n)
    return Question("even", level, prompt, "odd" if n % 2 else "even", f"even:{n}")


def draw_compare(rng: Random, level: int) -> Question:
    """Draw a yes-or-no comparison of two different numbers of `level` + 1 digits."""
    a, b = rng.sample(range(10**level, 10 ** (level + 1)), 2)
    asks_greater = rng.random() < 0.5
    wording = rng.choice(_GREATER_WORDINGS if asks_greater else _LESS_WORDINGS)
    answer = "yes" if (a > b) == asks_greater else "no"
    key = f"compare:{min(a, b)}:{max(a, b)}"
    return Question("compare", level, wording.format(a=a, b=b), answer, key)


def add_working(a: int, b: int) -> str:
    """Return column sums from the right, each with the carry that enters it."""
    steps, carry = [], 0
    for da, db in zip(*_columns(a, b), strict=True):
        total = da + db + carry
        steps.append(f"{da}+{db}{'+1' if carry else ''}={total}")
        carry = total // 10
    return ",".join(steps)


def sub_working(a: int, b: int) -> str:
    """Return column differences from the right; a borrowed ten is already in the first digit."""
    steps, borrow = [], 0
    for da, db in zip(*_columns(a, b), strict=True):
        needs_ten = da - borrow < db
        top = da + 10 * needs_ten
        steps.append(f"{top}{'-1' if borrow else ''}-{db}={top - borrow - db}")
        borrow = int(needs_ten)
    return ",".join(steps)


def mul_working(a: int, b: int) -> str:
    """Return one row of column products for each non-zero digit of `b`, then their sum.

    A factor that is a power of ten needs no working.
    """
    zeros = len(str(b)) - len(str(b).rstrip("0"))
    digits = [int(digit) for digit in reversed(str(b))]
    rows = [(digit, place) for place, digit in enumerate(digits) if digit]
    if rows == [(1, zeros)]:
        return ""
    steps = [f"{_row_working(a, digit)}:{a * digit * 10**place}" for digit, place in rows]
    if len(rows) == 2:
        low, high = (a * digit * 10**place for digit, place in rows)
        steps.append(add_working(low, high))
    return ";".join(steps)


def _row_working(a: int, digit: int) -> str:
    steps, carry = [], 0
    for da in (int(d) for d in reversed(str(a))):
        total = da * digit + carry
        steps.append(f"{da}*{digit}{f'+{carry}' if carry else ''}={total}")
        carry = total // 10
    return ",".join(steps)


def _columns(a: int, b: int) -> tuple[list[int], list[int]]:
    width = max(len(str(a)), len(str(b)))
    first, second = (
        [int(digit) for digit in reversed(str(number).zfill(width))] for number in (a, b)
    )
    return first, second


def _operands(rng: Random, ranges: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    first, second = ranges
    return rng.randint(*first), rng.randint(*second)
