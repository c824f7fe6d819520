"""Kernels on trial: used on a device only where they give there what torch gives."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)


def passes(
    what: str, device: torch.device, tolerance: float, distance: Callable[[torch.device], float]
) -> bool:
    """Tell whether Triton's kernels run on a device and stay within a distance of torch."""
    has_triton = importlib.util.find_spec("triton") is not None
    return has_triton and agrees(f"Triton's {what}", device, tolerance, distance)


def agrees(
    what: str, device: torch.device, tolerance: float, distance: Callable[[torch.device], float]
) -> bool:
    """Tell whether code compiled here runs on a device and stays within a distance of torch.

    Compiled for a device that nobody has tried, it may fail or, worse, be wrong, so
    `distance` computes something small both ways first.
    """
    try:
        found = distance(device)
    except Exception as exc:  # whatever a compiler throws, torch's own way is there
        log.warning("%s does not run on %s, torch's is used: %s", what, device, exc)
        return False
    if not found <= tolerance:
        log.warning("%s is off by %.6f on %s, torch's is used", what, found, device)
        return False
    return True


def worst(*distances: float) -> float:
    """Return the largest; one that is no number is beyond all others."""
    return max(math.inf if math.isnan(d) else d for d in distances)


def trial_dtype(device: torch.device) -> torch.dtype:
    """Return the type to try in: Triton's interpreter, which stands in for a GPU, knows no bf16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
