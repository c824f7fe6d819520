"""What /metrics says, in the Prometheus text format 0.0.4."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from local_engine.accelerator import AcceleratorState
from local_engine.timings import Histogram, Timings
from local_engine.types import EngineStats

_METRICS = (
    ("running", "gauge", "requests_running", "Requests in the batch."),
    ("waiting", "gauge", "requests_waiting", "Requests waiting for the batch."),
    ("steps", "counter", "steps_total", "Steps of the model."),
    ("busy_s", "counter", "busy_seconds_total", "Time spent in steps."),
    ("prompt_tokens", "counter", "prompt_tokens_total", "Prompt tokens processed."),
    ("completion_tokens", "counter", "completion_tokens_total", "Tokens generated."),
    ("finished", "counter", "requests_finished_total", "Requests that ended by themselves."),
    ("cancelled", "counter", "requests_cancelled_total", "Requests cancelled."),
    ("failed", "counter", "requests_failed_total", "Requests that broke while running."),
    ("refused", "counter", "requests_refused_total", "Requests refused at a full line."),
    ("preempted", "counter", "preemptions_total", "Requests put back for want of pages."),
    ("reused_tokens", "counter", "prefix_tokens_total", "Prompt tokens found computed."),
    ("guessed", "counter", "guessed_tokens_total", "Tokens guessed ahead."),
    ("guessed_right", "counter", "guessed_tokens_kept_total", "Guessed tokens that were right."),
    ("pages", "gauge", "kv_pages", "Pages of the cache."),
    ("pages_used", "gauge", "kv_pages_used", "Pages in use by requests."),
    ("pages_kept", "gauge", "kv_pages_kept", "Unused pages whose prefix can be found."),
)


_ACCELERATOR = (
    ("memory", "gpu_memory_bytes", "Memory of the GPU."),
    ("memory_used", "gpu_memory_used_bytes", "Memory of the GPU in use, by anybody."),
    ("memory_own", "gpu_memory_own_bytes", "Memory of the GPU that the engine holds."),
    ("busy", "gpu_busy_ratio", "Share of the last moments in which the GPU was at work."),
)

_TIMINGS = (
    ("queue", "queue_seconds", "Time from submission to the first step."),
    ("first_token", "time_to_first_token_seconds", "Time from submission to the first token."),
    ("per_token", "time_per_output_token_seconds", "Mean time of an answer's further tokens."),
    ("batch", "batch_size", "Sequences in a step."),
)


def render_metrics(
    stats: EngineStats | None,
    timings: Timings | None = None,
    accelerator: AcceleratorState | None = None,
) -> str:
    """Write counters, timings and a GPU's state; without an engine only that it is not ready."""
    lines = ["# HELP frugal_engine_ready Whether the model is loaded."]
    lines += ["# TYPE frugal_engine_ready gauge", f"frugal_engine_ready {int(stats is not None)}"]
    for field, kind, name, text in _METRICS if stats is not None else ():
        full = f"frugal_engine_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        lines.append(f"{full} {getattr(stats, field)}")
    for field, name, text in _ACCELERATOR if accelerator is not None else ():
        value = getattr(accelerator, field)
        if value is not None:
            full = f"frugal_engine_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge", f"{full} {value}"]
    for field, name, text in _TIMINGS if timings is not None else ():
        lines += _histogram(f"frugal_engine_{name}", text, getattr(timings, field))
    return "\n".join(lines) + "\n"


def _histogram(name: str, text: str, histogram: Histogram) -> Iterator[str]:
    yield from (f"# HELP {name} {text}", f"# TYPE {name} histogram")
    # One reading of the counts, so that the last bucket and the number agree.
    totals = list(itertools.accumulate(histogram.counts))
    for bound, total in zip((*histogram.bounds, "+Inf"), totals, strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {total}'
    yield from (f"{name}_sum {histogram.sum}", f"{name}_count {totals[-1]}")
