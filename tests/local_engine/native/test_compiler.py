"""Where compiled loops come from, and which files are never loaded."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from local_engine.native import compiler, library
from local_engine.native.compiler import CannotBuild, built
from local_engine.quant import make_linear


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build a small source of one function instead of the loops; return the cache directory."""
    try:
        compiler._compiler()
    except CannotBuild:
        pytest.skip("there is no C compiler here")
    source = tmp_path / "source"
    source.mkdir()
    (source / "seven.c").write_text("int seven(void) { return 7; }\n")
    monkeypatch.setattr(compiler, "SOURCE", source)
    return tmp_path / "cache"


def test_a_library_is_built_once_and_kept_from_others(small: Path) -> None:
    first = built(small, None)
    made = first.stat().st_mtime_ns

    assert ctypes.CDLL(str(first)).seven() == 7
    assert small.stat().st_mode & 0o777 == 0o700
    assert built(small, None) == first
    assert first.stat().st_mtime_ns == made
    assert list(small.iterdir()) == [first]


def test_another_source_is_another_library(small: Path) -> None:
    first = built(small, None)
    (compiler.SOURCE / "seven.c").write_text("int seven(void) { return 8; }\n")

    assert built(small, None) != first


def test_a_damaged_library_is_built_again(small: Path) -> None:
    first = built(small, None)
    sound = first.read_bytes()
    first.write_bytes(sound[:-1] + b"\0" + sound[-1:])

    assert built(small, None).read_bytes() == sound


def test_what_others_may_write_or_point_elsewhere_is_refused(small: Path, tmp_path: Path) -> None:
    first = built(small, None)
    first.chmod(0o622)
    with pytest.raises(CannotBuild, match="chmod go-w"):
        built(small, None)
    first.chmod(0o600)
    first.rename(tmp_path / "elsewhere.so")
    first.symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(CannotBuild, match="not ours"):
        built(small, None)
    small.chmod(0o777)
    with pytest.raises(CannotBuild, match="may be written by others"):
        built(small, None)


def test_a_source_that_does_not_compile_is_said_with_the_compilers_words(small: Path) -> None:
    (compiler.SOURCE / "seven.c").write_text("int seven(void) { return\n")

    with pytest.raises(CannotBuild, match=r"failed: .*error"):
        built(small, None)


@pytest.mark.parametrize("reason", ["no compiler", "no folder", "switched off"])
def test_without_the_loops_torch_computes(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    match reason:
        case "no compiler":
            monkeypatch.setenv("PATH", str(tmp_path))
        case "no folder":
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        case "switched off":
            monkeypatch.setenv(library.SWITCH, "off")
    caplog.set_level("INFO")
    monkeypatch.setattr(library, "find_native", library.find_native.__wrapped__)
    assert library.native_for(torch.device("cpu")) is None
    weight, x = torch.randn(8, 64), torch.randn(3, 64)
    for scheme in ("int8", "int4"):
        found = make_linear(weight, None, scheme)(x)  # type: ignore[arg-type]

        assert ((found - x @ weight.T).norm() / (x @ weight.T).norm()).item() < 0.2
    assert "torch computes" in caplog.text


def test_loops_of_one_thread_are_used_where_torch_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    native = library.find_native()
    if native is None:
        pytest.skip("the native loops could not be built here")
    monkeypatch.setattr(native, "is_parallel", False)
    assert library.native_for(torch.device("cpu")) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    assert library.native_for(torch.device("cpu")) is native
    assert native.threads == 1
