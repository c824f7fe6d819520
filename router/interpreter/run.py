"""Walk the syntax tree of a function and work out what it returns.

No code object is ever made: the tree is read with `ast.parse` and each kind of
node that is understood has its own few lines here. What is not understood, or
takes too long, raises CannotTell; nothing is guessed.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from router.interpreter.bounds import MOST_STEPS, Allowance, CannotTell
from router.interpreter.library import (
    ERRORS,
    builtins,
    check_percent,
    constructors,
    method,
    powered,
)

_DEEPEST = 30  # calls within calls
_LONGEST = 4_000  # characters of code

_COMPARE: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.RShift: operator.rshift,
}  # fmt: skip
_UNARY: Mapping[type, Callable[[Any], Any]] = {
    ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}  # fmt: skip
_IN_PLACE: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.iadd,
    ast.BitOr: operator.ior,
}


class _Break(Exception):
    """A loop ends."""


class _Continue(Exception):
    """A loop goes on."""


class _Return(Exception):
    """A function ends; carries its value."""


class _Function:
    """A function that the code defined."""

    __slots__ = ("arguments", "body", "defaults", "scope")

    def __init__(
        self, node: ast.FunctionDef | ast.Lambda, defaults: Sequence[Any], scope: _Scope
    ) -> None:
        if node.args.kwonlyargs or node.args.kwarg or node.args.posonlyargs:
            raise CannotTell("arguments by name only")
        self.arguments = node.args
        self.body: Sequence[ast.stmt] | ast.expr = node.body
        self.defaults = defaults
        self.scope = scope


_Scope = list[dict[str, Any]]


def parsed(code: str) -> ast.Module:
    """Return the syntax tree of some code. Raises CannotTell."""
    if len(code) > _LONGEST:
        raise CannotTell("code too long")
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CannotTell("no Python") from error


def value_of(call: ast.expr, code: ast.Module, *, steps: int = MOST_STEPS) -> Any:
    """Return what an expression comes to after the definitions of `code`.

    Raises CannotTell for all that is not understood, and where the code raises.
    """
    machine = _Machine(Allowance(steps))
    try:
        scope: _Scope = [{}]
        for node in code.body:
            if isinstance(node, ast.FunctionDef | ast.Assign):
                machine.do(node, scope)
            elif not isinstance(node, ast.Assert | ast.Import | ast.ImportFrom | ast.Expr):
                raise CannotTell(f"{type(node).__name__} beside the functions")
        found = machine.read(call, scope)
        machine.allowance.weigh(found)
    except (Exception, RecursionError) as error:
        raise CannotTell("the code fails") from error
    return found


class _Machine:
    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._builtins = builtins(allowance, self.call)
        self._made = constructors(allowance)
        self._depth = 0

    # Statements.

    def do(self, node: ast.stmt, scope: _Scope) -> None:
        """Carry out one statement."""
        self.allowance.spend()
        handle: Callable[..., None] | None = getattr(self, f"_do_{type(node).__name__}", None)
        if handle is None:
            raise CannotTell(f"{type(node).__name__} is not understood")
        handle(node, scope)

    def _all(self, nodes: Sequence[ast.stmt], scope: _Scope) -> None:
        for node in nodes:
            self.do(node, scope)

    def _do_FunctionDef(self, node: ast.FunctionDef, scope: _Scope) -> None:
        if node.decorator_list or any(isinstance(n, ast.Yield) for n in ast.walk(node)):
            raise CannotTell("a decorated function, or a generator")
        defaults = [self.read(each, scope) for each in node.args.defaults]
        scope[-1][node.name] = _Function(node, defaults, scope)

    def _do_Return(self, node: ast.Return, scope: _Scope) -> None:
        raise _Return(None if node.value is None else self.read(node.value, scope))

    def _do_Pass(self, node: ast.Pass, scope: _Scope) -> None:
        return

    def _do_Break(self, node: ast.Break, scope: _Scope) -> None:
        raise _Break

    def _do_Continue(self, node: ast.Continue, scope: _Scope) -> None:
        raise _Continue

    def _do_Expr(self, node: ast.Expr, scope: _Scope) -> None:
        self.read(node.value, scope)

    def _do_Assign(self, node: ast.Assign, scope: _Scope) -> None:
        value = self.read(node.value, scope)
        for target in node.targets:
            self._store(target, value, scope)

    def _do_AnnAssign(self, node: ast.AnnAssign, scope: _Scope) -> None:
        if node.value is not None:
            self._store(node.target, self.read(node.value, scope), scope)

    def _do_AugAssign(self, node: ast.AugAssign, scope: _Scope) -> None:
        current = self.read(_loaded(node.target), scope)
        value = self._combine(node.op, current, self.read(node.value, scope), in_place=True)
        self._store(node.target, value, scope)

    def _do_Delete(self, node: ast.Delete, scope: _Scope) -> None:
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                owner = self.read(target.value, scope)
                if type(owner) not in (list, dict):
                    raise CannotTell("del of something else")
                del owner[self._key(target.slice, scope)]
            elif isinstance(target, ast.Name):
                del scope[-1][target.id]
            else:
                raise CannotTell("del of something else")

    def _do_If(self, node: ast.If, scope: _Scope) -> None:
        self._all(node.body if self.read(node.test, scope) else node.orelse, scope)

    def _do_Assert(self, node: ast.Assert, scope: _Scope) -> None:
        if not self.read(node.test, scope):
            raise CannotTell("an assertion fails")

    def _do_While(self, node: ast.While, scope: _Scope) -> None:
        while self.read(node.test, scope):
            self.allowance.spend()
            try:
                self._all(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._all(node.orelse, scope)

    def _do_For(self, node: ast.For, scope: _Scope) -> None:
        for value in self.read(node.iter, scope):
            self.allowance.spend()
            self._store(node.target, value, scope)
            try:
                self._all(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._all(node.orelse, scope)

    def _do_Try(self, node: ast.Try, scope: _Scope) -> None:
        if node.finalbody:
            raise CannotTell("finally is not understood")
        try:
            self._all(node.body, scope)
        except (_Return, _Break, _Continue):
            raise
        except Exception as error:
            handler = next((h for h in node.handlers if self._handles(h, error)), None)
            if handler is None or handler.name:
                raise
            self._all(handler.body, scope)
        else:
            self._all(node.orelse, scope)

    def _handles(self, handler: ast.ExceptHandler, error: Exception) -> bool:
        kinds = handler.type
        if kinds is None:
            return True
        names = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
        if not all(isinstance(name, ast.Name) and name.id in ERRORS for name in names):
            raise CannotTell("an error that is not known")
        return isinstance(error, tuple(ERRORS[name.id] for name in names))  # type: ignore[attr-defined]

    def _do_Raise(self, node: ast.Raise, scope: _Scope) -> None:
        made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if not isinstance(made, ast.Name) or made.id not in ERRORS:
            raise CannotTell("an error that is not known")
        raise ERRORS[made.id]

    def _store(self, target: ast.expr, value: Any, scope: _Scope) -> None:
        if isinstance(target, ast.Name):
            scope[-1][target.id] = value
        elif isinstance(target, ast.Subscript):
            owner = self.read(target.value, scope)
            if type(owner) not in (list, dict):
                raise TypeError("no item assignment")
            if isinstance(target.slice, ast.Slice):
                value = self.allowance.listed(value)
            owner[self._key(target.slice, scope)] = value
            self.allowance.made(owner)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target.elts, self.allowance.listed(value), scope)
        else:
            raise CannotTell("an assignment that is not understood")

    def _unpack(self, targets: Sequence[ast.expr], values: list[Any], scope: _Scope) -> None:
        star = next((i for i, t in enumerate(targets) if isinstance(t, ast.Starred)), None)
        if star is not None:
            after = len(targets) - star - 1
            if len(values) < len(targets) - 1:
                raise ValueError("not enough values")
            rest = values[star : len(values) - after]
            values = [*values[:star], rest, *values[len(values) - after :]]
        if len(values) != len(targets):
            raise ValueError("not as many values")
        for target, value in zip(targets, values, strict=True):
            inner = target.value if isinstance(target, ast.Starred) else target
            self._store(inner, value, scope)

    # Expressions.

    def read(self, node: ast.expr, scope: _Scope) -> Any:
        """Return what an expression comes to."""
        self.allowance.spend()
        handle: Callable[..., Any] | None = getattr(self, f"_read_{type(node).__name__}", None)
        if handle is None:
            raise CannotTell(f"{type(node).__name__} is not understood")
        return handle(node, scope)

    def _read_Constant(self, node: ast.Constant, scope: _Scope) -> Any:
        if type(node.value) not in (str, int, float, bool, type(None)):
            raise CannotTell("a constant that is not understood")
        return self.allowance.made(node.value)

    def _read_Name(self, node: ast.Name, scope: _Scope) -> Any:
        for names in reversed(scope):
            if node.id in names:
                return names[node.id]
        if node.id not in self._builtins:
            raise CannotTell(f"no name {node.id}")
        return self._builtins[node.id]

    def _read_List(self, node: ast.List, scope: _Scope) -> list[Any]:
        return list(self._members(node.elts, scope))

    def _read_Tuple(self, node: ast.Tuple, scope: _Scope) -> tuple[Any, ...]:
        return tuple(self._members(node.elts, scope))

    def _read_Set(self, node: ast.Set, scope: _Scope) -> set[Any]:
        members = list(self._members(node.elts, scope))
        self.allowance.weigh(members)
        return set(members)

    def _members(self, nodes: Sequence[ast.expr], scope: _Scope) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.allowance.listed(self.read(node.value, scope))
            else:
                yield self.read(node, scope)

    def _read_Dict(self, node: ast.Dict, scope: _Scope) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                other = self.read(value, scope)
                self.allowance.weigh(other)
                found.update(other)
            else:
                found[self._hashed(self.read(key, scope))] = self.read(value, scope)
        return found

    def _hashed(self, key: Any) -> Any:
        if isinstance(key, tuple | frozenset):
            self.allowance.weigh(key)
        return key

    def _read_BoolOp(self, node: ast.BoolOp, scope: _Scope) -> Any:
        stops = isinstance(node.op, ast.Or)
        value = None
        for each in node.values:
            value = self.read(each, scope)
            if bool(value) is stops:
                break
        return value

    def _read_IfExp(self, node: ast.IfExp, scope: _Scope) -> Any:
        return self.read(node.body if self.read(node.test, scope) else node.orelse, scope)

    def _read_UnaryOp(self, node: ast.UnaryOp, scope: _Scope) -> Any:
        return self.allowance.made(_UNARY[type(node.op)](self.read(node.operand, scope)))

    def _read_Compare(self, node: ast.Compare, scope: _Scope) -> Any:
        left = self.read(node.left, scope)
        found: Any = True
        for kind, each in zip(node.ops, node.comparators, strict=True):
            right = self.read(each, scope)
            self.allowance.weigh(left, right)
            found = _COMPARE[type(kind)](left, right)
            if not found:
                break
            left = right
        return found

    def _read_BinOp(self, node: ast.BinOp, scope: _Scope) -> Any:
        return self._combine(node.op, self.read(node.left, scope), self.read(node.right, scope))

    def _combine(self, kind: ast.operator, left: Any, right: Any, *, in_place: bool = False) -> Any:
        if isinstance(kind, ast.Pow):
            return powered(self.allowance, left, right)
        if isinstance(kind, ast.Mult | ast.LShift):
            return self._multiplied(kind, left, right)
        if isinstance(kind, ast.Mod):
            return self._modulo(left, right)
        table = _IN_PLACE if in_place and type(kind) in _IN_PLACE else _BINARY
        if type(kind) not in table:
            raise CannotTell("an operation that is not understood")
        if isinstance(left, set | frozenset | dict):
            self.allowance.weigh(left, right)
        return self.allowance.made(table[type(kind)](left, right))

    def _multiplied(self, kind: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(kind, ast.LShift):
            if not isinstance(right, int) or right > 256:
                raise CannotTell("a shift too far")
            return self.allowance.made(left << right)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                self.allowance.room(len(one) * max(other, 0))
        return self.allowance.made(left * right)

    def _modulo(self, left: Any, right: Any) -> Any:
        if isinstance(left, str):
            check_percent(left)
            self.allowance.weigh(right)
        return self.allowance.made(left % right)

    def _read_Subscript(self, node: ast.Subscript, scope: _Scope) -> Any:
        owner = self.read(node.value, scope)
        if type(owner) not in (str, list, tuple, dict, range):
            raise TypeError("not subscriptable")
        return self.allowance.made(owner[self._key(node.slice, scope)])

    def _key(self, node: ast.expr, scope: _Scope) -> Any:
        if not isinstance(node, ast.Slice):
            return self._hashed(self.read(node, scope))
        ends = (node.lower, node.upper, node.step)
        return slice(*(None if end is None else self.read(end, scope) for end in ends))

    def _read_JoinedStr(self, node: ast.JoinedStr, scope: _Scope) -> str:
        found = []
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                if part.format_spec is not None or part.conversion not in (-1, ord("s")):
                    raise CannotTell("a format beyond plain fields")
                value = self.read(part.value, scope)
                self.allowance.weigh(value)
                found.append(str(value))
            else:
                found.append(str(self.read(part, scope)))
        self.allowance.room(sum(map(len, found)))
        return "".join(found)

    def _read_NamedExpr(self, node: ast.NamedExpr, scope: _Scope) -> Any:
        value = self.read(node.value, scope)
        self._store(node.target, value, scope)
        return value

    def _read_Lambda(self, node: ast.Lambda, scope: _Scope) -> _Function:
        return _Function(node, [self.read(each, scope) for each in node.args.defaults], scope)

    def _read_ListComp(self, node: ast.ListComp, scope: _Scope) -> list[Any]:
        return self.allowance.listed(self._produced(node.generators, scope, node.elt))

    def _read_SetComp(self, node: ast.SetComp, scope: _Scope) -> set[Any]:
        members = self.allowance.listed(self._produced(node.generators, scope, node.elt))
        self.allowance.weigh(members)
        return set(members)

    def _read_GeneratorExp(self, node: ast.GeneratorExp, scope: _Scope) -> Any:
        # Made at once: pure functions cannot tell, other than by an error that comes earlier.
        return iter(self.allowance.listed(self._produced(node.generators, scope, node.elt)))

    def _read_DictComp(self, node: ast.DictComp, scope: _Scope) -> dict[Any, Any]:
        pair = ast.Tuple([node.key, node.value], ast.Load())
        found: dict[Any, Any] = {}
        for key, value in self._produced(node.generators, scope, pair):
            found[self._hashed(key)] = value
        return self.allowance.made(found)  # type: ignore[no-any-return]

    def _produced(
        self, loops: Sequence[ast.comprehension], scope: _Scope, element: ast.expr
    ) -> Iterator[Any]:
        inner = [*scope, {}]

        def within(level: int) -> Iterator[Any]:
            if level == len(loops):
                yield self.read(element, inner)
                return
            for value in self.read(loops[level].iter, inner):
                self.allowance.spend()
                self._store(loops[level].target, value, inner)
                if all(self.read(test, inner) for test in loops[level].ifs):
                    yield from within(level + 1)

        return within(0)

    def _read_Attribute(self, node: ast.Attribute, scope: _Scope) -> Any:
        owner = self.read(node.value, scope)
        return method(self.allowance, owner, node.attr, self.call)

    def _read_Call(self, node: ast.Call, scope: _Scope) -> Any:
        function = self.read(node.func, scope)
        args = tuple(self._members(node.args, scope))
        named = {}
        for each in node.keywords:
            if each.arg is None:
                raise CannotTell("arguments from a dict")
            named[each.arg] = self.read(each.value, scope)
        return self.call(function, args, named)

    def call(
        self, function: Any, args: Sequence[Any], named: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function that the code defined, or one of those it may use."""
        self.allowance.spend()
        if isinstance(function, _Function):
            return self._enter(function, args, named or {})
        if isinstance(function, type):
            function = self._made.get(function)
        if not callable(function):
            raise TypeError("not callable")
        return self.allowance.made(function(*args, **(named or {})))

    def _enter(self, function: _Function, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        if self._depth >= _DEEPEST:
            raise CannotTell("calls too deep")
        scope = [*function.scope, _bound(function, args, named)]
        self._depth += 1
        try:
            if isinstance(function.body, ast.expr):
                return self.read(function.body, scope)
            self._all(function.body, scope)
        except _Return as found:
            return found.args[0]
        finally:
            self._depth -= 1
        return None


def _bound(function: _Function, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    names = [each.arg for each in function.arguments.args]
    found = dict(zip(names[len(names) - len(function.defaults) :], function.defaults, strict=True))
    found.update(zip(names, args, strict=False))
    if function.arguments.vararg is not None:
        found[function.arguments.vararg.arg] = tuple(args[len(names) :])
    elif len(args) > len(names):
        raise TypeError("too many arguments")
    if not set(named) <= set(names):
        raise TypeError("an unknown argument")
    found.update(named)
    if any(name not in found for name in names):
        raise TypeError("too few arguments")
    return found


def _loaded(target: ast.Name | ast.Attribute | ast.Subscript) -> ast.expr:
    """Return a target of an assignment as what is read from it."""
    if isinstance(target, ast.Name):
        return ast.Name(target.id, ast.Load())
    if isinstance(target, ast.Subscript):
        return ast.Subscript(target.value, target.slice, ast.Load())
    raise CannotTell("an assignment that is not understood")
