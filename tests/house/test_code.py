"""Rules of the code itself: what every public name has, and what no file may do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.source import PACKAGES, Module, modules

UNSAFE_MODULES = {"dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {
    "__import__",
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "torch.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
UNSAFE_ARGUMENTS = {"allow_pickle", "shell", "trust_remote_code"}


@pytest.mark.parametrize("package", [*PACKAGES, "bench"])
def test_public_names_have_a_docstring(package):
    missing = [
        f"{module}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', module.name)}"
        for module in modules(package)
        for node in _public(module.tree)
        if not ast.get_docstring(node)
    ]

    assert not missing, "\n".join(missing)


def _public(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef]:
    yield tree
    yield from _public_members(tree)


def _public_members(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if child.name.startswith("_") or _is_overload(child):
            continue
        yield child
        if isinstance(child, ast.ClassDef):
            yield from _public_members(child)


def _is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(each).endswith(("overload", ".setter")) for each in node.decorator_list)


@pytest.mark.parametrize("folder", [None, "bench"])
def test_nothing_runs_code_that_it_was_given_as_data(folder):
    found = [
        f"{module}:{line} {what}"
        for module in (modules(folder) if folder else modules())
        for line, what in _unsafe(module)
    ]

    assert not found, "\n".join(found)


def _unsafe(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from ((node.lineno, n) for n in names if n.partition(".")[0] in UNSAFE_MODULES)
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in UNSAFE_CALLS:
                yield node.lineno, name
            for argument in node.keywords:
                if argument.arg in UNSAFE_ARGUMENTS and ast.unparse(argument.value) != "False":
                    yield node.lineno, ast.unparse(argument)


def test_nothing_is_left_unfinished():
    unfinished = re.compile(r"raise NotImplementedError|#\s*(TODO|FIXME|XXX)\b")
    found = [
        f"{module}:{number}"
        for module in (*modules(), *modules("bench"))
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
        if unfinished.search(line)
    ]

    assert not found, "\n".join(found)


def test_tests_use_real_parts_and_say_why_they_skip():
    found = [
        f"{module}:{line} {what}"
        for module in modules("tests")
        for line, what in (*_mocks(module), *_silent_skips(module), *_naps(module))
    ]

    assert not found, "\n".join(found)


def _mocks(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            if names & {"mock", "unittest.mock", "pytest_mock"}:
                yield node.lineno, "imports a mock"


def _silent_skips(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _SKIPS:
            call = _call_of(module, node)
            has_reason = call is not None and (
                any(argument.arg == "reason" for argument in call.keywords)
                or (node.attr == "skip" and bool(call.args))
            )
            if not has_reason:
                yield node.lineno, f"{ast.unparse(node)} without a reason"


_SKIPS = {f"pytest.{name}" for name in ("skip", "xfail", "importorskip")} | {
    f"pytest.mark.{name}" for name in ("skip", "skipif", "xfail")
}


def _call_of(module: Module, function: ast.Attribute) -> ast.Call | None:
    calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    return next((call for call in calls if call.func is function), None)


def _naps(module: Module) -> Iterator[tuple[int, str]]:
    """Find sleeps for time's sake. One within a `while` waits for a condition, and may stay."""
    polls = [node for node in ast.walk(module.tree) if isinstance(node, ast.While)]
    allowed = {id(node) for poll in polls for node in ast.walk(poll)}
    calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    for call in calls:
        is_sleep = ast.unparse(call.func) in ("time.sleep", "asyncio.sleep")
        is_yield = [ast.unparse(argument) for argument in call.args] == ["0"]
        if is_sleep and not is_yield and id(call) not in allowed:
            yield call.lineno, ast.unparse(call)
