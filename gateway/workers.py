"""Several alike processes behind one listening socket, replaced when they die."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread

from gateway.settings import Settings, Team

_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
_HEALTHY_S = 60.0
NOT_STARTED = 3
"""The status of a worker that could not begin, and has said why."""
_log = logging.getLogger(__name__)


async def run_workers(
    count: int, settings: Settings, public: socket.socket, admin: socket.socket
) -> None:
    """Run `count` workers until a signal stops them. The first one serves the admin port too.

    SIGHUP is passed on: each follows the policy as it is by then, also one that is
    still starting (`hangups`). Raises SystemExit where the first try of a worker could not begin.
    """
    stopping = asyncio.Event()
    running: set[asyncio.subprocess.Process] = set()

    def stop() -> None:
        stopping.set()
        # While any copy is open, the system takes connections that nobody would serve.
        public.close()
        admin.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _tell_all, running)
    hangups(wait=False)
    run, began = secrets.token_hex(3), time.time()
    teams = [Team(count, f"{run}{index:02x}", began) for index in range(count)]
    have_begun = await asyncio.gather(
        *(
            _keep_running(
                replace(settings, team=team), public, None if index else admin, stopping, running
            )
            for index, team in enumerate(teams)
        )
    )
    if not all(have_begun):
        raise SystemExit(1)


def hangups(*, wait: bool) -> None:
    """Let SIGHUP wait until it is known what to do; without that it would end the process.

    Processes that are started meanwhile let it wait, too.
    """
    how = signal.SIG_BLOCK if wait else signal.SIG_UNBLOCK
    signal.pthread_sigmask(how, {signal.SIGHUP})


def _tell_all(running: set[asyncio.subprocess.Process]) -> None:
    for worker in running:
        if worker.returncode is None:
            worker.send_signal(signal.SIGHUP)


async def _keep_running(
    settings: Settings,
    public: socket.socket,
    admin: socket.socket | None,
    stopping: asyncio.Event,
    running: set[asyncio.subprocess.Process],
) -> bool:
    """Return False where the very first could not begin; the others are stopped then."""
    failures, has_failed = 0, False
    loop = asyncio.get_running_loop()
    while not stopping.is_set():
        started = loop.time()
        worker = await _spawn(settings, public, admin)
        running.add(worker)
        ended = asyncio.create_task(worker.wait())
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        running.discard(worker)
        if stopping.is_set():
            if worker.returncode is None:
                worker.terminate()
            await ended
            return True
        if ended.result() == NOT_STARTED and not has_failed:
            stopping.set()
            return False
        has_failed = True
        _log.error("a worker ended with status %s; starting another", ended.result())
        failures = 0 if loop.time() - started > _HEALTHY_S else failures + 1
        await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
    return True


async def _spawn(
    settings: Settings, public: socket.socket, admin: socket.socket | None
) -> asyncio.subprocess.Process:
    handed = {
        "policy": str(settings.policy_path),
        "ledger": settings.ledger,
        "sockets": {name: str(path) for name, path in settings.sockets.items()},
        "team": asdict(settings.team),
        "semantic": str(settings.semantic) if settings.semantic else None,
        "supervisor": os.getpid(),
        "public": public.fileno(),
        "admin": admin.fileno() if admin else None,
    }
    fds = [public.fileno()] + ([admin.fileno()] if admin else [])
    hangups(wait=True)
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.workers", json.dumps(handed)),
            pass_fds=fds,
            stdin=asyncio.subprocess.PIPE,  # its end tells the worker of ours
            start_new_session=True,  # Ctrl-C is for us: a second signal would cut requests off
        )
    finally:
        hangups(wait=False)


def _worker(handed: str) -> None:
    """Serve in a process that `_spawn` has started."""
    from gateway.cli.serve import serve_from

    Thread(target=_end_with_parent, daemon=True).start()
    told = json.loads(handed)
    settings = Settings(
        policy_path=Path(told["policy"]),
        ledger=told["ledger"],
        sockets={name: Path(path) for name, path in told["sockets"].items()},
        team=Team(**told["team"]),
        semantic=Path(told["semantic"]) if told["semantic"] else None,
        supervisor=told["supervisor"],
    )
    admin = socket.socket(fileno=told["admin"]) if told["admin"] is not None else None
    serve_from(settings, socket.socket(fileno=told["public"]), admin)


def _end_with_parent() -> None:
    """Stop as on SIGTERM once the parent is gone, however it went."""
    # Not through `sys.stdin`, whose lock the interpreter wants to take as it ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    _worker(sys.argv[1])
