"""What /metrics says of a GPU, and what it leaves out."""

from __future__ import annotations

import torch

from local_engine.accelerator import AcceleratorState, accelerator_state
from local_engine.metrics import render_metrics
from local_engine.types import EngineStats


def test_a_gpu_s_memory_and_use_are_told() -> None:
    text = render_metrics(EngineStats(), None, AcceleratorState(100, 60, 40, 0.25))

    for line in ("gpu_memory_bytes 100", "gpu_memory_used_bytes 60", "gpu_memory_own_bytes 40"):
        assert f"\nfrugal_engine_{line}\n" in text
    assert "# TYPE frugal_engine_gpu_busy_ratio gauge\nfrugal_engine_gpu_busy_ratio 0.25\n" in text


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    text = render_metrics(EngineStats(), None, AcceleratorState(100, 60, 40))

    assert "gpu_memory_bytes" in text
    assert "gpu_busy" not in text


def test_a_cpu_has_no_such_lines() -> None:
    state = accelerator_state(torch.device("cpu"))

    assert state is None
    assert "gpu" not in render_metrics(EngineStats(), None, state)
