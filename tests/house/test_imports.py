"""Which part may know which: imports point one way, and heavy ones have one home."""

from __future__ import annotations

import sys
from pathlib import PurePath

import pytest

from tests.house.source import PACKAGES, Module, imports, modules

MAY_IMPORT = {
    "policies": {"policies"},
    "cache": {"cache", "policies"},
    "router": {"router", "policies"},
    "local_engine": {"local_engine", "policies"},
    "gateway": set(PACKAGES),
}
OUTSIDE = {"bench", "tests", "conftest"}


def _lives_in_gateway(module: Module) -> bool:
    return module.package == "gateway"


def _lives_in_engine(module: Module) -> bool:
    return module.package == "local_engine"


def _is_redis_file(module: Module) -> bool:
    return module.path.name == "redis.py"


def _is_telemetry(module: Module) -> bool:
    return "telemetry" in PurePath(module.path).with_suffix("").parts


HOMES = {
    "fastapi": _lives_in_gateway,
    "starlette": _lives_in_gateway,
    "uvicorn": _lives_in_gateway,
    "typer": _lives_in_gateway,
    "sqlalchemy": _lives_in_gateway,
    "torch": _lives_in_engine,
    "redis": _is_redis_file,
    "opentelemetry": _is_telemetry,
    "transformers": lambda module: False,
}


def test_imports_point_one_way():
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in modules()
        for found in imports(module)
        if (top := found.target.partition(".")[0]) in {*PACKAGES, *OUTSIDE}
        and top not in MAY_IMPORT[module.package]
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_library_is_imported_only_where_it_belongs(library):
    wrong = [
        f"{module}:{found.line}"
        for module in modules()
        for found in imports(module)
        if found.target.partition(".")[0] == library and not HOMES[library](module)
    ]

    assert not wrong, "\n".join(wrong)


def test_the_engine_runs_on_a_bare_gpu_machine():
    """Where it serves and measures, nothing but these is needed to import it."""
    bare = {"jinja2", "local_engine", "safetensors", "tokenizers", "torch"}
    apart = ("local_engine.demo", ".triton_")
    wrong = [
        f"{module}:{found.line} imports {found.target}"
        for module in modules("local_engine")
        for found in imports(module)
        if not found.is_deferred
        and not any(part in module.name for part in apart)
        and found.target.partition(".")[0] not in bare | sys.stdlib_module_names
    ]

    assert not wrong, "\n".join(wrong)


def test_no_import_cycles():
    graph = _graph()
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in finished:
            for target in graph[name]:
                visit(target, (*way, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def _graph() -> dict[str, set[str]]:
    names = {module.name for module in modules()}
    graph: dict[str, set[str]] = {}
    for module in modules():
        targets = {_home(found.target, names) for found in imports(module) if not found.is_deferred}
        graph[module.name] = {target for target in targets if target} - {module.name}
    return graph


def _home(target: str, names: set[str]) -> str | None:
    """Return the module that an imported name lives in."""
    if target in names:
        return target
    holder = target.rpartition(".")[0]
    return holder if holder in names else None


def test_every_folder_of_source_is_a_package():
    folders = {module.path.parent for module in modules()}
    scripts = {folder for folder in folders if "migrations" in folder.parts}

    assert [str(f) for f in sorted(folders - scripts) if not (f / "__init__.py").exists()] == []


def test_tests_have_no_package_files_that_would_shadow_the_source():
    assert [str(module) for module in modules("tests") if module.path.name == "__init__.py"] == []
