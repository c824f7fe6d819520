"""Which form a client asks the answer to have, in OpenAI's words and two of our own."""

from __future__ import annotations

import re
from typing import Any

from local_engine.body import Body
from local_engine.errors import InvalidRequest, Unsupported
from local_engine.grammar import Constraint, Grammars

_MAX_CHOICES = 1000


def form_of(fields: Body, grammars: Grammars) -> Constraint | None:
    """Return what `response_format` or one of the `guided_…` fields asks for, compiled.

    `response_format` is OpenAI's, with the types `regex` (`pattern`) and `grammar`
    (`grammar`, Lark) besides; `guided_json`, `guided_regex`, `guided_grammar` and
    `guided_choice` say the same as vLLM's clients do. Raises `InvalidRequest`.
    """
    asked = [key for key in _GUIDED if fields.values.get(key) is not None]
    if fields.mapping("response_format").get("type", "text") != "text":
        asked.append("response_format")
    if len(asked) > 1:
        raise InvalidRequest(f"Ask for one form of answer, not {len(asked)}.", asked[1])
    if not asked:
        return None
    if asked == ["response_format"]:
        return _response_format(Body(fields.mapping("response_format")), grammars)
    return _guided(asked[0], fields.values[asked[0]], grammars)


def _response_format(form: Body, grammars: Grammars) -> Constraint:
    param = "response_format"
    match form.values["type"]:
        case "json_object":
            return grammars.schema({"type": "object"}, param)
        case "json_schema":
            described = Body(form.mapping("json_schema"))
            schema = described.values.get("schema", {})
            return _guided("guided_json", schema, grammars, f"{param}.json_schema.schema")
        case "regex":
            return grammars.regex(_text(form.values.get("pattern"), f"{param}.pattern"), param)
        case "grammar":
            return grammars.lark(_text(form.values.get("grammar"), f"{param}.grammar"), param)
        case other:
            raise Unsupported(
                f"response_format.type must be text, json_object, json_schema, regex or grammar; "
                f"found {str(other)[:100]!r}.",
                param,
            )


def _guided(key: str, value: Any, grammars: Grammars, param: str | None = None) -> Constraint:
    param = param or key
    match key:
        case "guided_json":
            if not isinstance(value, dict | bool):
                raise InvalidRequest(f"{param} must be a JSON schema.", param)
            return grammars.schema(value, param)
        case "guided_regex":
            return grammars.regex(_text(value, param), param)
        case "guided_grammar":
            return grammars.lark(_text(value, param), param)
    return grammars.regex(_alternatives(value, param), param)


_GUIDED = ("guided_json", "guided_regex", "guided_grammar", "guided_choice")


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{param} must be text that is not empty.", param)
    return value


def _alternatives(value: Any, param: str) -> str:
    """Return an expression that matches any of the listed texts."""
    is_sound = isinstance(value, list) and all(isinstance(v, str) and v for v in value)
    if not is_sound or not 1 <= len(value) <= _MAX_CHOICES:
        raise InvalidRequest(f"{param} must be a list of 1 to {_MAX_CHOICES} texts.", param)
    return "|".join(re.escape(v) for v in value)
