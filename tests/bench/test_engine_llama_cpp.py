from __future__ import annotations

import importlib.util

import pytest
import torch

from bench.engine_llama_cpp import _Q4_0, _Q8_0, main, write_gguf
from local_engine.bench import shapes
from local_engine.loader import LoadOptions, load_model

FP32 = LoadOptions(dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize(("kind", "levels"), [(_Q8_0, 127), (_Q4_0, 8)])
def test_the_file_stands_for_the_checkpoint_to_a_step_of_its_blocks(tmp_path, kind, levels):
    shapes.write_checkpoint(tmp_path, "1m")
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path, path, kind)
    plain, found = (load_model(p, FP32).decoder for p in (tmp_path, path))

    for ours, theirs in zip(plain.layers, found.layers, strict=True):
        for name in ("qkv", "output"):
            wanted, read = getattr(ours, name).weight, getattr(theirs, name).weight
            largest = wanted.reshape(-1, 32).abs().amax(1, keepdim=True)
            apart = (wanted - read).reshape(-1, 32).abs()
            # The largest number of a block of Q4_0 may be a whole step beyond its levels.
            assert (apart <= largest / levels * 1.01 + 1e-6).all()
    assert torch.allclose(plain.embedding, found.embedding, atol=1e-3)


def test_without_llama_cpp_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert main() == 2
    assert "pip install llama-cpp-python" in capsys.readouterr().err
