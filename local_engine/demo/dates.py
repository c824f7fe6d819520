"""Questions about days of the week and days of a year without a leap day."""

from __future__ import annotations

from random import Random

from local_engine.demo.question import Question
from local_engine.demo.reasoning import remainder_working

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_DAY_WORDINGS = (
    "What day is {n} days after {start}?",
    "Today is {start}. What day is it in {n} days?",
    "Which weekday comes {n} days after {start}?",
)
_DATE_WORDINGS = (
    "What date is {n} days after {start}?",
    "Today is {start}. What is the date in {n} days?",
    "Add {n} days to {start}.",
)


def draw_day(rng: Random, level: int) -> Question:
    """Draw a weekday some days later; levels are up to 7, 30, 99 and 999 days."""
    start = rng.randrange(7)
    n = rng.randint(*((1, 7), (8, 30), (31, 99), (100, 999))[level - 1])
    prompt = rng.choice(_DAY_WORDINGS).format(n=n, start=DAYS[start])
    answer = DAYS[(start + n) % 7]
    return Question("day", level, prompt, answer, f"day:{start}:{n}", day_working(start, n))


def draw_date(rng: Random, level: int) -> Question:
    """Draw a date some days later; levels are up to 5, 14, 45 and 120 days."""
    month = rng.randrange(12)
    day = rng.randint(1, MONTH_LENGTHS[month])
    n = rng.randint(*((1, 5), (6, 14), (15, 45), (46, 120))[level - 1])
    prompt = rng.choice(_DATE_WORDINGS).format(n=n, start=f"{MONTHS[month]} {day}")
    working, answer = date_working(month, day, n)
    return Question("date", level, prompt, answer, f"date:{month}:{day}:{n}", working)


def day_working(start: int, n: int) -> str:
    """Return the remainder of `n` by seven, digit by digit, then the days stepped over."""
    steps, rest = remainder_working(n, 7)
    walk = " ".join(DAYS[(start + step) % 7] for step in range(rest + 1))
    return f"{steps},{walk}" if n >= 7 else walk


def date_working(month: int, day: int, n: int) -> tuple[str, str]:
    """Return the steps and the date: add the days, then take off whole months."""
    steps, day = [f"{day}+{n}={day + n}"], day + n
    while day > MONTH_LENGTHS[month]:
        rest = day - MONTH_LENGTHS[month]
        steps.append(f"{MONTHS[month]} {day}-{MONTH_LENGTHS[month]}={rest}")
        month, day = (month + 1) % 12, rest
    return ",".join(steps), f"{MONTHS[month]} {day}"
