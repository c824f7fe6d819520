"""What the environment and the command line say, as opposed to the policy: addresses and places."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Team:
    """The workers that serve alike, and which of them this process is.

    `token` is the end of this worker's request ids, and of those of its
    replacement; `began` is when the first of them began, in seconds since the epoch.
    """

    workers: int = 1
    token: str = ""
    began: float = 0.0

    @property
    def is_first(self) -> bool:
        """Return whether this worker does what one of them is to do for all."""
        return self.workers == 1 or self.token.endswith("00")


ALONE = Team()


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process was started.

    `sockets` maps a local model's name to the Unix socket of an engine that
    somebody else supervises; the app starts an engine itself for each local
    model not named there. `semantic` is the socket of the process that holds the
    semantic cache for several workers; without one, it stands in this process.
    `ledger` overrides the policy's. `supervisor` is the process that runs several workers.
    """

    policy_path: Path | None = None
    ledger: str | None = None
    sockets: Mapping[str, Path] = field(default_factory=dict)
    team: Team = ALONE
    semantic: Path | None = None
    supervisor: int | None = None

    def tell_others(self) -> None:
        """Let every worker read the policy's file again, where there are others."""
        if self.supervisor is not None:
            os.kill(self.supervisor, signal.SIGHUP)

    @property
    def workers(self) -> int:
        """Return how many processes serve alike, this one included."""
        return self.team.workers
