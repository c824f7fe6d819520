"""A language model of our own on this machine: loading, decoding, serving.

Importing the package is cheap. What needs torch lives in `engine`, `loader` and
`model` and is imported by whoever runs the model in its own process.
"""

from __future__ import annotations

from local_engine.errors import (
    CheckpointError,
    ContextLengthExceeded,
    EngineBusy,
    EngineError,
    EngineStopped,
    EngineUnavailable,
    GenerationFailed,
    InvalidRequest,
)
from local_engine.supervise import EngineCommand, EngineProcess

__all__ = [
    "CheckpointError",
    "ContextLengthExceeded",
    "EngineBusy",
    "EngineCommand",
    "EngineError",
    "EngineProcess",
    "EngineStopped",
    "EngineUnavailable",
    "GenerationFailed",
    "InvalidRequest",
]
