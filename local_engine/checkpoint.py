"""Where a checkpoint lies: shipped, in a directory or a .gguf file, or on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from local_engine.errors import CheckpointError

_SHIPPED = Path(__file__).parent / "demo" / "checkpoints"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]


def find_checkpoint(name: str) -> Path:
    """Resolve `demo/NAME`, a directory, a .gguf file or a hub name to a local path.

    Raises `CheckpointError` where there is none, and never runs code from the hub.
    """
    if name.startswith("demo/"):
        return _shipped(name)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path
    if path.is_dir():
        return path
    if _HUB_NAME.fullmatch(name) and not path.exists():
        return _download(name)
    raise CheckpointError(
        path,
        "expected a Hugging Face checkpoint directory, a .gguf file, demo/NAME or a hub name like "
        "Qwen/Qwen2.5-0.5B-Instruct",
    )


def _shipped(name: str) -> Path:
    path = _SHIPPED / name.removeprefix("demo/")
    if path.parent == _SHIPPED and path.is_dir():
        return path
    names = sorted(p.name for p in _SHIPPED.iterdir() if p.is_dir()) if _SHIPPED.is_dir() else []
    found = ", ".join(f"demo/{n}" for n in names) or "none"
    raise CheckpointError(name, f"is not shipped; shipped checkpoints: {found}")


def _download(name: str) -> Path:
    # Standard output and progress bars belong to the caller.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as exc:
        raise CheckpointError(
            name, "a hub name needs huggingface_hub; install it or give a local directory"
        ) from exc
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as exc:
        raise CheckpointError(
            name,
            "is neither a local directory nor in the local hub cache, and the hub did not "
            f"answer with it ({type(exc).__name__}); download it elsewhere and give its directory",
        ) from exc
