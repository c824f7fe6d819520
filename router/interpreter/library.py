"""The built-in functions and methods that interpreted code may use, each within bounds.

What is not listed does not exist. No attribute is ever looked up by a name
that the code chose, other than these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.interpreter.bounds import LARGEST, Allowance, CannotTell

Call = Callable[..., Any]

_OF_TEXT = (
    "capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii "
    "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join "
    "ljust lower lstrip maketrans partition removeprefix removesuffix replace rfind rindex rjust "
    "rpartition rsplit rstrip split splitlines startswith strip swapcase title translate upper "
    "zfill format"
)
_OF_LIST = "append clear copy count extend index insert pop remove reverse sort"
_OF_DICT = "clear copy get items keys pop popitem setdefault update values fromkeys"
_OF_SET = (
    "add clear copy difference difference_update discard intersection intersection_update "
    "isdisjoint issubset issuperset pop remove symmetric_difference union update"
)
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_OF_TEXT.split()),
    list: frozenset(_OF_LIST.split()),
    dict: frozenset(_OF_DICT.split()),
    set: frozenset(_OF_SET.split()),
    tuple: frozenset(("count", "index")),
    int: frozenset(("bit_length",)),
    float: frozenset(("is_integer",)),
}
TYPES: Mapping[str, type] = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "tuple": tuple,
    "dict": dict, "set": set,
}  # fmt: skip
ERRORS: Mapping[str, type[Exception]] = {
    each.__name__: each
    for each in (
        *(Exception, ValueError, KeyError, IndexError, TypeError, AttributeError),
        *(ZeroDivisionError, StopIteration, LookupError, ArithmeticError),
    )
}
_WIDTH = re.compile(r"\d{3}|\*")


def method(allowance: Allowance, owner: Any, name: str, call: Call) -> Call:
    """Return a method of a value. `call` runs functions that the code defined."""
    kind = owner if owner is str or owner is dict else type(owner)
    if name not in METHODS.get(kind, ()):
        raise CannotTell(f"no method {name} of {kind.__name__}")
    bound: Call = getattr(owner, name)

    def run(*args: Any, **named: Any) -> Any:
        args = tuple(allowance.listed(arg) if hasattr(arg, "__next__") else arg for arg in args)
        allowance.weigh(*args, *named.values())
        if kind is str:
            _check_text(allowance, owner, name, args)
        elif kind is not dict and not isinstance(owner, type):
            allowance.weigh(owner)
        if "key" in named:
            named["key"] = _function(named["key"], call)
        found = bound(*args, **named)
        if kind is dict and name in ("items", "keys", "values"):
            return found
        if isinstance(owner, list | set | dict):
            allowance.room(len(owner))
        return allowance.made(found)

    return run


def _function(value: Any, call: Call) -> Call | None:
    return None if value is None else lambda *args: call(value, args)


def _check_text(allowance: Allowance, text: Any, name: str, args: Sequence[Any]) -> None:
    """Refuse what would make a text far longer than those it is made of."""
    if not isinstance(text, str):
        if name != "maketrans" and args:
            _check_text(allowance, args[0], name, args[1:])
        return
    if name in ("ljust", "rjust", "center", "zfill", "expandtabs"):
        allowance.room(int(args[0]) if args else 8 * len(text))
        if name == "expandtabs":
            allowance.room(len(text) * (int(args[0]) if args else 8))
    elif name == "replace" and len(args) > 1:
        allowance.room(len(text) + (text.count(args[0]) + 1) * len(args[1]))
    elif name == "join":
        if not isinstance(args[0], str | list | tuple | set | dict | range):
            raise CannotTell("join over something else")
        allowance.room(sum(map(len, args[0])) + len(text) * len(args[0]))
    elif name == "translate":
        longest = max((len(v) for v in args[0].values() if isinstance(v, str)), default=1)
        allowance.room(len(text) * max(1, longest))
    elif name == "format":
        _check_format(text)
        allowance.weigh(*args)


def _check_format(text: str) -> None:
    """Allow plain fields only: a field could reach into attributes, or ask for a wide column."""
    for field in re.findall(r"\{([^{}]*)\}", text):
        if not re.fullmatch(r"\w{0,20}(?::[<>^]?\d{0,2}(?:\.\d)?[dfs]?)?", field):
            raise CannotTell("a format beyond plain fields")
    if len(text) > 500 or re.search(r"\{[^{}]*\{", text):
        raise CannotTell("a format beyond plain fields")


def check_percent(text: str) -> None:
    """Allow percent formats without wide columns. Raises CannotTell."""
    if _WIDTH.search(text) or len(text) > 500:
        raise CannotTell("a format beyond plain fields")


def constructors(allowance: Allowance) -> dict[type, Call]:
    """Return what makes a value of each type, within bounds."""

    def weighed(kind: Call) -> Call:
        def run(*args: Any) -> Any:
            allowance.weigh(*args)
            return allowance.made(kind(*args))

        return run

    def gathered(kind: Call) -> Call:
        def run(*args: Any) -> Any:
            items = allowance.listed(args[0]) if args else []
            allowance.weigh(items)
            return kind(items)

        return run

    def made_dict(*args: Any, **named: Any) -> dict[Any, Any]:
        items = args
        if args and not isinstance(args[0], dict):
            items = (allowance.listed(args[0]),)
        allowance.weigh(*items)
        return dict(*items, **named)

    simple = {kind: weighed(kind) for kind in (str, int, float, bool)}
    return simple | {kind: gathered(kind) for kind in (list, tuple, set)} | {dict: made_dict}


def builtins(allowance: Allowance, call: Call) -> dict[str, Any]:  # noqa: C901 - a table
    """Return the functions of the language, by name."""

    def mapped(function: Any, *lists: Any) -> Any:
        found = []
        for args in zip(*lists, strict=False):
            allowance.spend()
            found.append(call(function, args))
        return iter(found)

    def filtered(function: Any, values: Any) -> Any:
        found = []
        for value in values:
            allowance.spend()
            if value if function is None else call(function, (value,)):
                found.append(value)
        return iter(found)

    def ordered(values: Any, *, key: Any = None, reverse: Any = False) -> list[Any]:
        items = allowance.listed(values)
        allowance.weigh(items)
        allowance.spend(len(items) // 4)
        return sorted(items, key=_function(key, call), reverse=bool(reverse))

    def extreme(best: Call) -> Call:
        def run(*args: Any, **named: Any) -> Any:
            allowance.weigh(*args)
            if "key" in named:
                named["key"] = _function(named["key"], call)
            return best(*args, **named)

        return run

    def weighed(function: Call) -> Call:
        def run(*args: Any) -> Any:
            allowance.weigh(*args)
            return allowance.made(function(*args))

        return run

    def next_of(values: Any, *default: Any) -> Any:
        if not hasattr(values, "__next__"):
            raise TypeError("not an iterator")
        return next(values, *default)

    def summed(values: Any, start: Any = 0) -> Any:
        items = allowance.listed(values)
        if not all(isinstance(each, int | float) for each in (*items, start)):
            raise CannotTell("a sum of something else")
        return allowance.made(sum(items, start))

    def counted(*args: Any) -> range:
        found = range(*args)
        if len(found) > LARGEST * 4:
            raise CannotTell("a range too long")
        return found

    def power(*args: Any) -> Any:
        return powered(allowance, *args)

    return {
        "abs": abs, "len": len, "round": round, "chr": chr, "ord": ord, "callable": callable,
        "range": counted, "sum": summed, "pow": power, "isinstance": isinstance,
        "sorted": ordered, "map": mapped, "filter": filtered, "next": next_of,
        "iter": lambda values: iter(allowance.listed(values)),
        "enumerate": lambda values, start=0: iter(
            allowance.listed(enumerate(allowance.listed(values), start))
        ),
        "zip": lambda *lists: iter(allowance.listed(zip(*lists, strict=False))),
        "reversed": lambda values: iter(allowance.listed(reversed(values))),
        "any": lambda values: any(allowance.listed(values)),
        "all": lambda values: all(allowance.listed(values)),
        "max": extreme(max), "min": extreme(min),
        "repr": weighed(repr), "hex": weighed(hex), "bin": weighed(bin), "oct": weighed(oct),
        "divmod": weighed(divmod), "print": lambda *args, **named: None, **TYPES,
    }  # fmt: skip


def powered(allowance: Allowance, base: Any, exponent: Any, *modulus: Any) -> Any:
    """Raise to a power whose size is known beforehand to be small."""
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent > 256 or base.bit_length() * max(exponent, 1) > 256 or modulus:
            raise CannotTell("a power too large")
    elif not isinstance(base, int | float) or not isinstance(exponent, int | float):
        raise TypeError("not a number")
    return allowance.made(base**exponent)
