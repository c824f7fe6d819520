"""Tool calls: which way of writing them a chat template teaches, and reading them strictly.

What is not exactly a call of a tool that was offered, with arguments that its schema asks
for by name, is no call: its text stays content, and the reply says what was wrong with
it, so that a cascade can ask a better model.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from local_engine.tokenizer import Tokenizer

Style = Literal["hermes", "llama", "mistral"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_CALLS, _ARGUMENTS, _PYTHON = "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>"
_MARKS: dict[Style, tuple[str, ...]] = {
    "hermes": (_OPEN, _CLOSE),
    "llama": (_PYTHON,),
    "mistral": (_CALLS, _ARGUMENTS),
}


def style_of(template: str) -> Style | None:
    """Tell how a chat template wants calls written, None where it knows no tools."""
    if "tools" not in template or "<function=" in template:
        return None
    if _CALLS in template:
        return "mistral"
    if _OPEN in template:
        return "hermes"
    return "llama" if _PYTHON in template or '"parameters"' in template else None


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of one request: the schema of each one's parameters, and how to call them."""

    style: Style
    schemas: Mapping[str, Mapping[str, Any]]
    is_parallel: bool = True

    def shown(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return the special tokens that belong to the text of a call."""
        ids = (tokenizer.token_id(mark) for mark in _MARKS[self.style])
        return frozenset(i for i in ids if i is not None and not tokenizer.bytes_of(i))

    def reader(self) -> ToolReader:
        """Return what reads one answer."""
        return _READERS[self.style](self)

    def grammar(self, tokenizer: Tokenizer, *, only: str | None = None) -> str:
        """Write a Lark grammar of answers that call tools, or `only` that one, and say no more."""
        names = self.schemas if only is None else (only,)
        many = "" if only is not None or not self.is_parallel else "*"
        shown = self.shown(tokenizer)
        open_, close = (_terminal(m, tokenizer, shown) for m in (_MARKS[self.style] * 2)[:2])
        body = f"body: %json {json.dumps(self._body(names))}"
        match self.style:
            case "hermes":
                more = f'("\\n" call){many}' if many else ""
                return f'start: call {more}\ncall: {open_} "\\n" body "\\n" {close}\n{body}'
            case "mistral":
                more = f'("," body){many}' if many else ""
                return f'start: {open_} "[" body {more} "]"\n{body}'
        more = f'(";" body){many}' if many else ""
        return f"start: body {more}\n{body}"

    def _body(self, names: Any) -> dict[str, Any]:
        key = "parameters" if self.style == "llama" else "arguments"
        return {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"name": {"const": name}, key: dict(self.schemas[name])},
                    "required": ["name", key],
                    "additionalProperties": False,
                }
                for name in names
            ]
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that was read; `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    def as_openai(self, index: int | None = None) -> dict[str, Any]:
        """Return it in OpenAI's shape, with its index in a stream."""
        place = {} if index is None else {"index": index}
        function = {"name": self.name, "arguments": self.arguments}
        return {**place, "id": self.id, "type": "function", "function": function}


class ToolReader(Protocol):
    """Reads one answer as it grows."""

    calls: list[ToolCall]
    faults: list[str]

    def push(self, text: str, *, is_final: bool) -> str:
        """Take in text; return what of it is content for certain. Calls and faults add up."""


@dataclass
class _Reader:
    box: Toolbox
    calls: list[ToolCall] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _held: str = ""

    def _take(self, raw: str, value: Any) -> str:
        """Add a call, or say what is wrong and return its text as content."""
        try:
            self.calls.append(self._checked(value))
        except ValueError as exc:
            return self._refuse(raw, str(exc))
        return ""

    def _refuse(self, raw: str, why: str) -> str:
        self.faults.append(why[:200])
        return raw

    def _checked(self, value: Any) -> ToolCall:
        key = "parameters" if self.box.style == "llama" else "arguments"
        if not isinstance(value, dict):
            raise ValueError("a call must be an object")
        if set(value) - {"name", "arguments", key, "id", "type"}:
            raise ValueError("a call must have a name and arguments, nothing else")
        name, arguments = value.get("name"), value.get(key, value.get("arguments"))
        if not isinstance(name, str) or name not in self.box.schemas:
            raise ValueError(f"no tool named {str(name)[:80]!r} was offered")
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {name} must be an object")
        _check_arguments(name, arguments, self.box.schemas[name])
        if self.calls and not self.box.is_parallel:
            raise ValueError("one call was asked for, and more were made")
        # Mistral's templates insist on nine letters and digits.
        id = secrets.token_hex(5)[:9] if self.box.style == "mistral" else _call_id()
        return ToolCall(id, name, json.dumps(arguments, ensure_ascii=False))


class _Hermes(_Reader):
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, among content (Qwen, Hermes)."""

    _is_inside = False

    def push(self, text: str, *, is_final: bool) -> str:
        self._held += text
        content = ""
        while True:
            mark = _CLOSE if self._is_inside else _OPEN
            before, found, rest = self._held.partition(mark)
            if not found:
                break
            self._held = rest
            content += self._call(before) if self._is_inside else self._plain(before)
            self._is_inside = not self._is_inside
        if is_final:
            return content + self._end()
        if self._is_inside:
            return content
        kept = _overlap(self._held, _OPEN)
        free, self._held = (
            self._held[: len(self._held) - kept],
            self._held[len(self._held) - kept :],
        )
        return content + self._plain(free)

    def _plain(self, text: str) -> str:
        # Between calls there are line ends, which are no content.
        return "" if (self.calls or self.faults) and not text.strip() else text

    def _call(self, body: str) -> str:
        try:
            value = _strict(body)
        except ValueError as exc:
            return self._refuse(f"{_OPEN}{body}{_CLOSE}", f"a call is not JSON: {exc}")
        return self._take(f"{_OPEN}{body}{_CLOSE}", value)

    def _end(self) -> str:
        held, self._held = self._held, ""
        if self._is_inside:
            return self._refuse(_OPEN + held, "a call was begun and not ended")
        if _CLOSE in held:
            return self._refuse(held, "a call was ended and not begun")
        return self._plain(held)


class _Llama(_Reader):
    """The whole answer is `{"name": …, "parameters": {…}}`, more after semicolons (Llama 3)."""

    _is_content = False

    def push(self, text: str, *, is_final: bool) -> str:
        self._held += text
        if not self._is_content and not is_final:
            start = self._held.lstrip()
            self._is_content = bool(start) and not (
                start.startswith(("{", _PYTHON)) or _PYTHON.startswith(start)
            )
        if not self._is_content and not is_final:
            return ""
        held, self._held = self._held, ""
        return held if self._is_content else self._whole(held)

    def _whole(self, text: str) -> str:
        is_marked = text.lstrip().startswith(_PYTHON)
        body = text.strip().removeprefix(_PYTHON)
        if not is_marked and not body.startswith("{"):
            return text
        try:
            values = _separated(body, ";")
        except ValueError as exc:
            if not is_marked and '"name"' not in body:
                return text
            return self._refuse(text, f"a call is not JSON: {exc}")
        if not is_marked and not any("name" in v for v in values if isinstance(v, dict)):
            return text
        return "".join(self._take(json.dumps(v), v) for v in values)


class _Mistral(_Reader):
    """`[TOOL_CALLS][{"name": …, "arguments": {…}}]`, or `[TOOL_CALLS]name[ARGS]{…}`, at the end."""

    _is_inside = False

    def push(self, text: str, *, is_final: bool) -> str:
        self._held += text
        content = ""
        if not self._is_inside:
            content, found, rest = self._held.partition(_CALLS)
            self._is_inside = bool(found)
            kept = 0 if found or is_final else _overlap(content, _CALLS)
            self._held = rest if found else content[len(content) - kept :]
            content = content[: len(content) - kept]
        if is_final and self._is_inside:
            held, self._held = self._held, ""
            content += self._whole(held)
        return content

    def _whole(self, text: str) -> str:
        try:
            values = [v for part in text.split(_CALLS) for v in _mistral_calls(part.strip())]
        except ValueError as exc:
            return self._refuse(_CALLS + text, f"a call is not JSON: {exc}")
        return "".join(self._take(json.dumps(v), v) for v in values)


_READERS: dict[Style, Callable[[Toolbox], ToolReader]] = {
    "hermes": _Hermes,
    "llama": _Llama,
    "mistral": _Mistral,
}


def _mistral_calls(text: str) -> list[Any]:
    if text.startswith("["):
        values = _strict(text)
        return values if isinstance(values, list) else [values]
    name, brace, arguments = text.partition("{")
    return [
        {"name": name.removesuffix(_ARGUMENTS).strip(), "arguments": _strict(brace + arguments)}
    ]


def _strict(text: str) -> Any:
    """Read JSON as written, with no key twice and no number that is none."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def _separated(text: str, separator: str) -> list[Any]:
    """Read JSON values with a separator between them."""
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
    values = []
    while True:
        try:
            value, end = decoder.raw_decode(text.lstrip())
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc
        values.append(value)
        text = text.lstrip()[end:].strip()
        if not text:
            return values
        if not text.startswith(separator):
            raise ValueError("something follows it")
        text = text.removeprefix(separator)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_arguments(name: str, arguments: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Raise `ValueError` where required arguments lack, or some are given that there are not."""
    required = schema.get("required")
    known = schema.get("properties")
    for key in required if isinstance(required, list) else ():
        if key not in arguments:
            raise ValueError(f"{name} lacks the argument {str(key)[:80]!r}")
    if schema.get("additionalProperties") is False and isinstance(known, dict):
        for key in arguments:
            if key not in known:
                raise ValueError(f"{name} has no argument {key[:80]!r}")


def _overlap(text: str, mark: str) -> int:
    """Return the length of the longest ending of a text that begins a mark."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0


def _terminal(mark: str, tokenizer: Tokenizer, shown: frozenset[int]) -> str:
    token = tokenizer.token_id(mark)
    return f"<[{token}]>" if token in shown else json.dumps(mark)


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
