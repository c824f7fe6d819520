"""How the accelerator stands: what /metrics says of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AcceleratorState:
    """Memory in bytes, of the whole device and of this process; `busy` is a share of time.

    What the device does not tell is None, never zero.
    """

    memory: int
    memory_used: int
    memory_own: int
    busy: float | None = None


def accelerator_state(device: torch.device) -> AcceleratorState | None:
    """Ask a device how it stands; None for a CPU, and for one that does not answer."""
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
    except RuntimeError as exc:
        log.debug("the accelerator does not tell its memory: %s", exc)
        return None
    return AcceleratorState(total, total - free, own, _busy(device))


def _busy(device: torch.device) -> float | None:
    """Return the share of the last moments in which kernels ran, as NVML tells it."""
    try:
        return torch.cuda.utilization(device) / 100
    except Exception as exc:  # NVML's Python package is not there, or each driver's own reason
        log.debug("the accelerator does not tell its use: %s", exc)
        return None
