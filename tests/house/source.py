"""The project's own source as syntax trees, for the tests of its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("cache", "gateway", "local_engine", "policies", "router")


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))


@dataclass(frozen=True)
class Import:
    """One name that a module imports, and whether that happens as it is itself imported."""

    target: str
    line: int
    is_deferred: bool


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Return every module under the given folders, or of the product where none is given."""
    paths = [path for folder in folders or PACKAGES for path in (ROOT / folder).rglob("*.py")]
    return tuple(_module(path) for path in sorted(paths))


def imports(module: Module) -> Iterator[Import]:
    """Yield what a module imports; `from a import b` as `a.b`."""
    yield from _imports(module, module.tree, is_deferred=False)


def _imports(module: Module, node: ast.AST, *, is_deferred: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, is_deferred)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno}: write imports in full"
            for alias in child.names:
                yield Import(f"{child.module}.{alias.name}", child.lineno, is_deferred)
        else:
            yield from _imports(module, child, is_deferred=is_deferred or _defers(child))


def _defers(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
