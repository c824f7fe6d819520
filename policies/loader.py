"""From a policy file to a checked `Policy`, or to everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from policies.checks.access import check_access
from policies.checks.models import check_models
from policies.checks.outline import Outline
from policies.checks.routes import check_routes
from policies.document import Document, child, read_document
from policies.explain import explain, path_in
from policies.later import take_out_later
from policies.problems import PolicyError, Problem
from policies.schema import Key, Model, Policy, Route, Server

__all__ = ["MAX_FILE", "PolicyError", "Problem", "load_policy", "parse_policy", "read_policy",
           "read_text"]  # fmt: skip

MAX_FILE = 1024 * 1024

_ROUNDS = 3

S = TypeVar("S", bound=BaseModel)


def load_policy(path: Path, env: Mapping[str, str]) -> Policy:
    """Read and check a policy file; `env` answers its `${NAME}` references.

    Relative paths in it start at its folder. Raises PolicyError, and OSError
    where the file cannot be read.
    """
    return read_policy(path, env)[0]


def parse_policy(
    text: str, *, name: str, env: Mapping[str, str], folder: Path | None = None
) -> Policy:
    """Check a policy's text; `name` stands for the file in messages.

    Without a `folder`, relative paths are left as they are. Raises PolicyError.
    """
    return _checked(text, name, env, folder)[0]


def read_policy(path: Path, env: Mapping[str, str]) -> tuple[Policy, Document]:
    """Do as `load_policy`, and return the document too, for those who have more to check."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        raise PolicyError([_whole(path, f"expected at most {MAX_FILE} bytes, found more")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        problem = Problem(str(path), line, 1, "", "expected UTF-8 text, found other bytes")
        raise PolicyError([problem]) from exc
    return _checked(text, str(path), env, path.absolute().parent)


def read_text(
    text: str, *, name: str, env: Mapping[str, str], folder: Path | None = None
) -> tuple[Policy, Document]:
    """Do as `parse_policy`, and return the document too."""
    return _checked(text, name, env, folder)


def _checked(
    text: str, name: str, env: Mapping[str, str], folder: Path | None
) -> tuple[Policy, Document]:
    if len(text) > MAX_FILE:
        raise PolicyError([_whole(name, f"expected at most {MAX_FILE} characters, found more")])
    document = read_document(text, name=name, env=env)
    if not isinstance(document.data, dict):
        document.report((), f"expected a mapping (version: 1, ...), found {document.found(())}")
        raise PolicyError(document.problems)
    take_out_later(document)
    context = {"folder": folder}
    policy = _validate(document, context)
    outline = _outline(document.data, context)
    for check in (check_access, check_models, check_routes):
        check(outline, document)
    if document.problems or policy is None:
        raise PolicyError(document.problems)
    return policy, document


def _validate(document: Document, context: Mapping[str, Any]) -> Policy | None:
    try:
        return Policy.model_validate(document.data, context=context)
    except ValidationError as exc:
        explain(exc, document)
        return None


def _outline(data: Mapping[str, Any], context: Mapping[str, Any]) -> Outline:
    """Keep the sections that are well formed, so that one slip does not hide the others."""
    models, routes = data.get("models"), data.get("routes")
    return Outline(
        model_names=tuple(models) if isinstance(models, dict) else (),
        route_names=tuple(routes) if isinstance(routes, dict) else (),
        models=_sound(Model, models, context),
        routes=_sound(Route, routes, context),
        keys=_sound(Key, child(data.get("access"), "keys"), context),
        server=_sound(Server, [data.get("server")], context).get(0, Server()),
    )


def _sound(section: type[S], raw: object, context: Mapping[str, Any]) -> dict[Any, S]:
    """Read the well-formed sections of a mapping or a list, by key or position."""
    named = dict(enumerate(raw)) if isinstance(raw, list) else raw
    sound: dict[Any, S] = {}
    for name, value in named.items() if isinstance(named, dict) else ():
        with suppress(ValidationError):
            sound[name] = _read(section, value, context)
    return sound


def _read(section: type[S], value: object, context: Mapping[str, Any]) -> S:
    """Read a section without its faults; some faults show only once others are gone."""
    for _ in range(_ROUNDS):
        try:
            return section.model_validate(value, context=context)
        except ValidationError as exc:
            value = _without_faults(value, exc)
    return section.model_validate(value, context=context)


def _without_faults(value: object, error: ValidationError) -> object:
    """Leave out each key whose value is wrong, so that the rest of the section can be checked."""
    kept = deepcopy(value)
    for detail in error.errors(include_url=False):
        path = path_in(value, detail["loc"])
        while path and isinstance(path[-1], int):
            path = path[:-1]
        holder = reduce(child, path[:-1], kept)
        if path and isinstance(holder, dict):
            holder.pop(path[-1], None)
    return kept


def _whole(name: object, message: str) -> Problem:
    return Problem(str(name), 0, 0, "", message)
