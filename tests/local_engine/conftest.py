"""Checkpoints written once, loaded once, and transformers' own view of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.engine_families import write_tokenizer
from local_engine.loader import LoadedModel, LoadOptions, load_model
from tests.local_engine.support import build

CPU = LoadOptions(device=torch.device("cpu"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of a checkpoint of the named kind; not to be changed."""

    @functools.cache
    def directory(kind: str) -> Path:
        path = tmp_path_factory.mktemp(kind)
        build(kind).save_pretrained(path)
        write_tokenizer(path)
        return path

    return directory


@pytest.fixture(scope="session")
def loaded(checkpoint: Callable[[str], Path]) -> Callable[[str], LoadedModel]:
    """Return the loaded model of a kind, on the CPU in fp32."""
    return functools.cache(lambda kind: load_model(checkpoint(kind), CPU))


@pytest.fixture(scope="session")
def oracle(checkpoint: Callable[[str], Path]) -> Callable[[str], PreTrainedModel]:
    """Return transformers' model of a kind."""

    def model(kind: str) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(checkpoint(kind), dtype=torch.float32).eval()

    return functools.cache(model)
