"""Where heavy jobs are done: one at a time, each in a process that gives way to serving."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from gateway.learning.errors import LearningError
from gateway.learning.labour import Training, Weighing

_WITHIN_S = 3600.0
_MOST_BYTES = 1 << 20
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Workshop:
    """Does jobs for all routes of a process. `place` is the folder of the bundles it makes."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._bench = asyncio.Lock()

    def room(self, route: str, number: int) -> Path:
        """Return the folder of a bundle that does not exist yet."""
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in route)
        return self.place / f"{safe}-{number}"

    def clear(self, path: Path) -> None:
        """Remove a bundle of ours that nobody is to use; what stands elsewhere stays."""
        if path.parent == self.place:
            shutil.rmtree(path, ignore_errors=True)

    async def do(self, job: Training | Weighing) -> dict[str, Any]:
        """Do a job and return its result. Raises LearningError; cancelled, it ends the process."""
        async with self._bench:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.learning.labour"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_MOST_BYTES,
                env={**os.environ, **dict.fromkeys(_THREADS, "1")},
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(_WITHIN_S):
                    return await _asked(worker, msgspec.json.encode(job))
            except TimeoutError as exc:
                raise LearningError(f"its process did not end within {_WITHIN_S:g} s") from exc
            finally:
                if worker.returncode is None:
                    worker.kill()
                await worker.wait()


async def _asked(worker: asyncio.subprocess.Process, job: bytes) -> dict[str, Any]:
    assert worker.stdin is not None, "it was started with pipes"
    assert worker.stdout is not None, "it was started with pipes"
    try:
        # The pipe stays open: its end tells the process of ours.
        worker.stdin.write(job + b"\n")
        await worker.stdin.drain()
        line = await worker.stdout.readline()
        result: dict[str, Any] = msgspec.json.decode(line)
    except (OSError, ValueError) as exc:
        status = await worker.wait()
        raise LearningError(
            f"its process ended with status {status}; its errors are above"
        ) from exc
    if (error := result.get("error")) is not None:
        raise LearningError(str(error))
    return result
