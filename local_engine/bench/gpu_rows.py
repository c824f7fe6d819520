"""The figures of a GPU: fractions of what its memory and its arithmetic allow, as measured."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from local_engine.bench.loops import EngineLoop, prompt_of, request_of
from local_engine.bench.random_model import LLAMA_8B, QWEN_1_5B, bytes_read, random_model
from local_engine.bench.rows import Row
from local_engine.loader import LoadedModel
from local_engine.quant import Quantization
from local_engine.types import EngineLimits, GenerationRequest

STEPS = 64
LOAD = 32
ARRIVALS = 7
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """A device, and what it was measured to do: bytes and operations a second."""

    device: torch.device
    bandwidth: float
    flops: float


def measure_machine(device: torch.device, nbytes: int = 4 * _GIB, side: int = 8192) -> Machine:
    """Measure copies of so many bytes, and bf16 products of squares with such a side."""
    copied_s = _copy_s(nbytes, device)
    square = torch.randn(side, side, device=device).to(torch.bfloat16)
    product_s = _typical(lambda: square @ square, device)
    return Machine(device, nbytes / copied_s, 2 * side**3 / product_s)


def _copy_s(nbytes: int, device: torch.device) -> float:
    """Return the seconds of reading one half of so many bytes and writing the other."""
    half = torch.zeros(nbytes // 2, dtype=torch.uint8, device=device)
    other = torch.empty_like(half)
    return _typical(lambda: other.copy_(half), device)


def _typical(work: Callable[[], object], device: torch.device, rounds: int = 12) -> float:
    times = []
    for _ in range(rounds):
        _settle(device)
        started = time.perf_counter()
        work()
        _settle(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[rounds // 3 :])


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class Case:
    """One shape in one form at one batch size, and the share of the floor that it should reach."""

    name: str
    shape: Mapping[str, Any]
    scheme: Quantization
    batch: int
    context: int
    target: float


CASES = (
    Case("8B bf16, batch 1", LLAMA_8B, "none", 1, 512, 70),
    Case("8B bf16, batch 128", LLAMA_8B, "none", 128, 1024, 55),
    Case("8B int8, batch 1", LLAMA_8B, "int8", 1, 512, 55),
    Case("8B fp8, batch 1", LLAMA_8B, "fp8", 1, 512, 55),
    Case("8B int4, batch 1", LLAMA_8B, "int4-g128", 1, 512, 42),
    Case("1.5B bf16, batch 1", QWEN_1_5B, "none", 1, 512, 45),
)


def decode_rows(case: Case, model: LoadedModel, machine: Machine) -> Iterator[Row]:
    """Tell how fast a full batch decodes, and how near that is to the floor.

    A step cannot take less than its bytes take to be read, nor than its products take.
    """
    step = _step_s(model, case.batch, case.context)
    floor = floor_s(model, case.batch, case.context + STEPS // 2, machine)
    yield Row(f"{case.name}: tokens", case.batch / step, "tok/s")
    yield Row(f"{case.name}: share of the roofline", 100 * floor / step, "%", case.target)


def floor_s(model: LoadedModel, batch: int, context: int, machine: Machine) -> float:
    """Return the least seconds that a decoding step could take."""
    c = model.config
    layer = c.hidden * (2 * c.q_size + 2 * c.kv_size + 3 * c.intermediate)
    products = 2 * batch * (c.layers * layer + c.vocab * c.hidden)
    return max(bytes_read(model, context, batch) / machine.bandwidth, products / machine.flops)


def _step_s(model: LoadedModel, batch: int, context: int) -> float:
    limits = EngineLimits(
        max_batch=batch, max_context=context + 4 * STEPS, prefill_chunk=4096, kv_bytes=48 * _GIB
    )
    loop = EngineLoop(model, limits, time.perf_counter)
    for n in range(batch):
        loop.add(request_of(prompt_of(model.config.vocab, context, n), 3 * STEPS))
    while loop.core.stats().prompt_tokens < batch * context:
        loop.step()
    # The first steps compile kernels and record them.
    for _ in range(8):
        loop.step()
    return statistics.median(itertools.islice(loop.timed_steps(), STEPS))


def waiting_rows(model: LoadedModel) -> Iterator[Row]:
    """Tell how long a prompt of 1,000 tokens waits for its first token while others decode."""
    limits = EngineLimits(
        max_batch=LOAD + 1, max_context=2048, prefill_chunk=1024, kv_bytes=24 * _GIB
    )
    loop = EngineLoop(model, limits, time.perf_counter)
    vocab = model.config.vocab
    for n in range(LOAD):
        loop.add(request_of(prompt_of(vocab, 256, n), 1500))
    for _ in range(LOAD):
        loop.step()
    waits = []
    for n in range(ARRIVALS):
        request = request_of(prompt_of(vocab, 1000, 1000 + n), 4)
        waits.append(_first_token_s(loop, request))
    for id in list(loop.live):
        loop.cancel(id)
    # The first arrival compiles the chunk's kernels.
    name = f"first token of 1,000 under load of {LOAD}"
    yield Row(f"{name}, median", 1000 * statistics.median(waits[1:]), "ms", 200, at_most=True)
    yield Row(f"{name}, worst", 1000 * max(waits[1:]), "ms")


def _first_token_s(loop: EngineLoop, request: GenerationRequest) -> float:
    started = time.perf_counter()
    loop.add(request)
    while True:
        events = loop.events()
        if any(e.token is not None and e.sequence.request is request for e in events):
            taken = time.perf_counter() - started
            loop.cancel(request.id)
            return taken


def model_rows(machine: Machine, has_time: Callable[[], bool]) -> Iterator[Row]:
    """Time every case for which there is time, one model in memory at once."""
    kept: tuple[object, LoadedModel] | None = None
    for case in CASES:
        if not has_time():
            return
        key = (id(case.shape), case.scheme)
        if kept is None or kept[0] != key:
            kept = None
            _free(machine.device)
            kept = (key, random_model(case.shape, case.scheme, machine.device))
        yield from decode_rows(case, kept[1], machine)
        if case is CASES[0]:
            yield from waiting_rows(kept[1])


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
