"""Quantized weights on disk: taken when sound, made again when anything differs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import Packed, Quantization, quantize
from local_engine.quant_store import QuantStore, cache_directory, cache_key


def loaded_with(path: Path, kept_in: Path, scheme: Quantization = "int4") -> LoadedModel:
    return load_model(path, LoadOptions(scheme, device=torch.device("cpu"), kept_in=kept_in))


def outputs_of(model: LoadedModel) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 64).view(2, 64)
    return torch.cat([layer.qkv(x) for layer in model.decoder.layers], dim=-1)


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint("qwen2"), tmp_path / "copy"))


@pytest.mark.parametrize("scheme", ["int8", "int4", "nf4", "fp8"])
def test_the_second_load_takes_what_the_first_made(
    scheme: Quantization, copy: Path, tmp_path: Path
) -> None:
    first = loaded_with(copy, tmp_path / "kept", scheme)
    (file,) = (tmp_path / "kept").iterdir()
    written = file.stat().st_ino
    second = loaded_with(copy, tmp_path / "kept", scheme)

    assert torch.equal(outputs_of(first), outputs_of(second))
    assert [f.stat().st_ino for f in (tmp_path / "kept").iterdir()] == [written]
    assert QuantStore(tmp_path / "kept", file.stem.partition("-")[0]).is_warm


def test_other_weights_schemes_and_settings_have_other_keys(copy: Path) -> None:
    files = [copy / "config.json", copy / "model.safetensors"]
    keys = {cache_key(files, "int8"), cache_key(files, "int4")}
    values = json.loads(files[0].read_text())
    files[0].write_text(json.dumps(values | {"rms_norm_eps": 1e-5}))
    keys.add(cache_key(files, "int8"))
    data = bytearray(files[1].read_bytes())
    data[-1] ^= 1
    files[1].write_bytes(data)
    keys.add(cache_key(files, "int8"))

    assert len(keys) == 4


@pytest.mark.parametrize("place", [9, 300, -1])
def test_a_damaged_file_is_thrown_away_and_made_again(
    place: int, copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = outputs_of(loaded_with(copy, tmp_path / "kept"))
    (file,) = (tmp_path / "kept").iterdir()
    data = bytearray(file.read_bytes())
    data[place] ^= 0x40
    file.write_bytes(data)

    with caplog.at_level(logging.WARNING):
        found = outputs_of(loaded_with(copy, tmp_path / "kept"))

    assert torch.equal(found, wanted)
    assert "damaged" in caplog.text
    assert [f.name for f in (tmp_path / "kept").iterdir()] == [file.name]


def test_a_place_that_cannot_be_written_costs_no_answer(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file, where a directory should be")

    model = loaded_with(copy, tmp_path / "kept")

    assert outputs_of(model).isfinite().all()
    assert "could not be kept" in caplog.text


def test_only_the_latest_files_stay(tmp_path: Path) -> None:
    packed = quantize(torch.ones(16, 64), "int8")
    for n in range(12):
        store = QuantStore(tmp_path, f"{n:032}")
        store.keep("a", packed)
        store.save()
        for file in tmp_path.glob(f"{n:032}-*"):
            os.utime(file, (n, n))

    names = sorted(f.name[:32] for f in tmp_path.iterdir())
    assert names == [f"{n:032}" for n in range(4, 12)]
    found = QuantStore(tmp_path, f"{11:032}").find("a")
    assert isinstance(found, Packed)
    assert torch.equal(found.values, packed.values)
    assert QuantStore(tmp_path, f"{11:032}").find("b") is None


def test_the_default_place_is_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert cache_directory() == tmp_path / "frugal-gateway" / "quantized"
