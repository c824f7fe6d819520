"""Chat templates: a checkpoint's Jinja program, rendered in a sandbox with bounds.

A template comes with the weights and is not trusted. Beyond Jinja's immutable sandbox,
every loop and macro turn is counted, every value it builds is measured, and operations
that make much from little (powers, repetition, wide formats) are refused.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from local_engine.errors import InvalidRequest

_SOURCE_CHARS = 256 << 10
_VALUE_SIZE = 8 << 20
_STEPS = 50_000
_NUMBER = 1_000_000
_WIDE_FORMAT = re.compile(r"\d{5,}|\*|\{[^}]*\{")
# One string each, for forty quoted words are hard to read.
_FILTERS = frozenset(
    """abs batch capitalize count d default dictsort e escape first float groupby indent int items
    join last length list lower map max min reject rejectattr replace reverse round safe select
    selectattr slice sort string sum title tojson trim truncate unique upper""".split()  # noqa: SIM905
)
_SIZED = frozenset(
    "batch center expandtabs indent ljust rjust round slice truncate zfill".split()  # noqa: SIM905
)


class ChatTemplate:
    """A compiled template that turns messages into one prompt."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile; raises `jinja2.TemplateError` or `ValueError` on a template beyond bounds."""
        if len(source) > _SOURCE_CHARS:
            raise ValueError(f"expected a template under {_SOURCE_CHARS} characters")
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._environment = _Environment()
        try:
            tree = self._environment.parse(source)
            self._template = self._environment.from_string(_CountSteps().visit(tree))
        except RecursionError as exc:
            raise ValueError("is nested too deeply") from exc

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        now: datetime,
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Render up to where the assistant speaks; raises `InvalidRequest` if it refuses."""
        values = {
            **(variables or {}),
            **self._special_tokens,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": True,
            "strftime_now": lambda pattern: now.strftime(str(pattern)[:100]),
            "raise_exception": _raise_exception,
        }
        self._environment.steps.begin()
        try:
            return self._collect(values)
        except (jinja2.TemplateError, RecursionError, ArithmeticError) as exc:
            raise InvalidRequest(f"The chat template refused: {exc}", "messages") from exc
        except (TypeError, ValueError, LookupError, AttributeError) as exc:
            raise InvalidRequest(
                f"The chat template does not fit these messages: {exc}", "messages"
            ) from exc

    def _collect(self, values: Mapping[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        for part in self._template.generate(values):
            size += len(part)
            if size > _VALUE_SIZE:
                raise SecurityError(f"it writes more than {_VALUE_SIZE} characters")
            parts.append(part)
        return "".join(parts)


class _Steps(Extension):
    """Count the turns of loops and macros in one render, out of the template's reach.

    Also reads `{% generation %}`, with which some templates mark the model's own words
    for training, as plain content.
    """

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._local = threading.local()

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def begin(self) -> None:
        self._local.left = _STEPS

    def tick(self) -> str:
        self._local.left -= 1
        if self._local.left < 0:
            raise SecurityError(f"it takes more than {_STEPS} steps")
        return ""

    def measure(self, value: Any) -> Any:
        """Pass a value through, unless it has grown too large."""
        if isinstance(value, str | list | tuple | dict) and len(value) > _VALUE_SIZE:
            raise SecurityError(f"it builds a value larger than {_VALUE_SIZE}")
        return value


class _CountSteps(NodeTransformer):
    """Put a tick into every loop and macro, and a measure around every new value."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _extension_call("measure", node)

    def visit_Assign(self, node: nodes.Assign) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.node, nodes.Expr)
        node.node = _extension_call("measure", node.node)
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_extension_call("tick")))
        return node

    def _ticking(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_extension_call("tick")))
        result: nodes.Node = node
        return result


def _extension_call(name: str, *arguments: nodes.Expr) -> nodes.Call:
    target = nodes.ExtensionAttribute(_Steps.identifier, name)
    return nodes.Call(target, list(arguments), [], None, None)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, set up as Hugging Face templates expect, with a short list of filters."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Steps, "jinja2.ext.loopcontrols"]
        )
        steps = self.extensions[_Steps.identifier]
        assert isinstance(steps, _Steps)
        self.steps = steps
        self.filters = {k: _guarded(k, f) for k, f in self.filters.items() if k in _FILTERS}
        self.filters["tojson"] = _guarded("tojson", _to_json)
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers are not allowed")
        if operator == "%":
            _check_format(left)
        elif _size_after(operator, left, right) > _VALUE_SIZE:
            raise SecurityError(f"'{operator}' builds a value larger than {_VALUE_SIZE}")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # Named as in the base class, so that a template's keyword arguments cannot collide.
        # The sandbox itself wraps `format`; what it wraps is the string's own method.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            _check_growth(__obj.__name__, (owner, *args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # `wraps` carries over the marks by which Jinja knows what to pass first.
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_growth(name, (*args, *kwargs.values()))
        return function(*args, **kwargs)

    return guarded


def _check_growth(name: str, arguments: tuple[Any, ...]) -> None:
    """Refuse calls that make a large text from small arguments."""
    if name in _SIZED and any(isinstance(a, int) and abs(a) > _NUMBER for a in arguments):
        raise SecurityError(f"{name}: a number over {_NUMBER} is not allowed")
    if name in ("format", "format_map"):
        _check_format(arguments[0])
    if name in ("join", "replace", "indent"):
        sizes = [len(a) for a in arguments if hasattr(a, "__len__")]
        if len(sizes) > 1 and sorted(sizes)[-1] * max(1, sorted(sizes)[-2]) > _VALUE_SIZE * 64:
            raise SecurityError(f"{name}: its arguments are too large")


def _check_format(pattern: Any) -> None:
    if isinstance(pattern, str) and _WIDE_FORMAT.search(pattern):
        raise SecurityError("formats with large or computed widths are not allowed")


def _size_after(operator: str, left: Any, right: Any) -> int:
    sizes = [len(v) if hasattr(v, "__len__") else None for v in (left, right)]
    if operator == "+":
        return sum(s for s in sizes if s is not None)
    if sizes == [None, None]:
        bits = [v.bit_length() if isinstance(v, int) else 0 for v in (left, right)]
        return _VALUE_SIZE + 1 if sum(bits) > 4096 else 0
    factor = left if sizes[0] is None else right
    size = sizes[1] if sizes[0] is None else sizes[0]
    return (size or 0) * abs(factor) if isinstance(factor, int) else 0


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without HTML escapes, as model templates expect."""
    if isinstance(indent, int):
        indent = min(indent, 16)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message)[:500])
