"""What pydantic found, in words of the policy: key path, nearest known key, expected and found."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.document import Document, child
from policies.problems import KeyPath, shortened
from policies.schema import Policy

_LOOKED_AT = 200  # names; comparing words is slow, and a file may hold thousands
_NAME = "letters, digits and . _ : / @ - (a letter or digit first, at most 128)"
_EXPECTED = {
    "bool": "true or false",
    "decimal": "a number",
    "dict": "a mapping",
    "finite": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "model": "a mapping",
    "none": "off",
    "path": "a path",
    "string": "text",
    "tuple": "a list",
}


def explain(error: ValidationError, document: Document) -> None:
    """Report each of pydantic's findings at its place in the document."""
    for detail in error.errors(include_url=False):
        path = path_in(document.data, detail["loc"])
        if detail["type"] == "extra_forbidden":
            _explain_unknown(path, document)
        elif detail["type"] == "missing":
            document.report(path, f"the key '{detail['loc'][-1]}' is missing")
        else:
            message, hint = _wording(detail, path, document)
            is_key = detail["loc"][-1:] == ("[key]",)
            document.settle(path, message, hint, at_key=is_key)


def path_in(data: object, loc: tuple[str | int, ...]) -> KeyPath:
    """Keep of pydantic's location what is in the data; the rest names branches of a union."""
    path: list[str | int] = []
    for key in loc:
        is_key = isinstance(data, dict) and key in data
        if is_key or (isinstance(data, list) and isinstance(key, int)):
            path.append(key)
            data = child(data, key)
    return tuple(path)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return a hint that names the closest known word, None where none is close."""
    close = get_close_matches(word, known[:_LOOKED_AT], n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else None


def known_keys(path: KeyPath) -> dict[str, Any]:
    """Return the keys that the section at a path may have, with what each is to hold."""
    annotation: Any = Policy
    for key in path:
        annotation = _below(annotation, key)
    return _keys_within(annotation)


def _explain_unknown(path: KeyPath, document: Document) -> None:
    key, known = str(path[-1]), known_keys(path[:-1])
    homes = [name for name, held in known.items() if key in _keys_within(held)]
    hint = f"it belongs under '{homes[0]}'" if homes else nearest(key, list(known))
    hint = hint or "known here: " + ", ".join(known)
    document.settle(path, f"unknown key '{shortened(key)}'", hint, at_key=True)


def _keys_within(annotation: Any) -> dict[str, Any]:
    section = _section(annotation)
    return {} if section is None else _fields(section)


def _wording(detail: ErrorDetails, path: KeyPath, document: Document) -> tuple[str, str | None]:
    kind, context = detail["type"], detail.get("ctx", {})
    found = document.found(path)
    if kind == "value_error":
        return str(context["error"]), None
    if kind == "literal_error":
        words = str(context["expected"]).replace("'", "")
        value = document.at(path)
        known = words.replace(" or ", ", ").split(", ")
        hint = nearest(value, known) if isinstance(value, str) else None
        return f"expected {words}, found {found}", hint
    if kind == "string_pattern_mismatch":
        what = f"the name {str(path[-1])!r}" if detail["loc"][-1:] == ("[key]",) else found
        return f"expected {_NAME}, found {what}", None
    if bound := _bound(kind, context):
        return f"expected {bound}, found {found}", None
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected is None:
        return detail["msg"], None
    is_loose = expected == "text" and isinstance(document.at(path), int | float)
    return f"expected {expected}, found {found}", "put it in quotes" if is_loose else None


def _bound(kind: str, context: dict[str, Any]) -> str | None:
    words = {
        "greater_than": "more than {gt:g}",
        "greater_than_equal": "at least {ge:g}",
        "less_than": "less than {lt:g}",
        "less_than_equal": "at most {le:g}",
        "too_short": "at least {min_length} of them",
        "too_long": "at most {max_length} of them",
    }.get(kind)
    return words.format(**context) if words else None


def _fields(section: type[BaseModel]) -> dict[str, Any]:
    fields = section.model_fields.items()
    return {field.alias or name: field.annotation for name, field in fields}


def _below(annotation: Any, key: str | int) -> Any:
    """Return the annotation of what an annotated value holds at a key."""
    if (section := _section(annotation)) is not None:
        return _fields(section).get(str(key))
    for option in (annotation, *get_args(annotation)):
        if get_origin(option) is dict:
            return get_args(option)[1]
        if get_origin(option) is tuple:
            return get_args(option)[0]
    return None


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that an annotation stands for, looking through unions and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (dict, tuple):
        return None
    options = (_section(option) for option in get_args(annotation))
    return next((section for section in options if section), None)
