"""What starting costs: heavy imports wait until the part that needs them is built."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.house.source import ROOT, modules

MODELS = {"pyarrow", "safetensors", "tokenizers", "torch", "transformers"}
SERVING = {"alembic", "fastapi", "genai_prices", "httpx", "sqlalchemy", "uvicorn", "uvloop"}
READING = {"pydantic", "yaml"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("gateway.cli.main", MODELS | SERVING | READING | {"numpy", "openai"}),
        ("gateway.app", MODELS | {"numpy", "openai"}),
        ("local_engine.demo.tasks", MODELS | SERVING | READING | {"numpy"}),
        ("policies.loader", MODELS | SERVING),
        ("cache.exact", MODELS | SERVING),
        ("router.cascade", MODELS | SERVING),
    ],
)
def test_import_pulls_in_nothing_heavy(module, unwanted):
    assert sorted(_loaded_by(module) & unwanted) == []


def test_importing_leaves_no_thread_and_no_file_behind(tmp_path):
    # Triton comes with torch for CUDA alone, and is asked for before its kernels are.
    apart = ("migrations", ".triton_")
    names = [m.name for m in modules() if not any(part in m.name for part in apart)]
    told = (
        f"import importlib, sys, threading; sys.path.insert(0, {str(ROOT)!r}); "
        f"[importlib.import_module(name) for name in {names!r}]; "
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    command = [sys.executable, "-B", "-W", "error", "-c", told]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def _loaded_by(module: str) -> set[str]:
    told = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", told]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}
