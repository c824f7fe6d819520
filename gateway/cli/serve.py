"""`frugal serve`: one process, or several alike that share a listening socket."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from gateway.app import Apps, create_app
from gateway.edge import App
from gateway.engines import running_engines
from gateway.http import http_protocol
from gateway.money.ledger import Ledger, LedgerError, ledger_at
from gateway.money.location import spool_of
from gateway.money.prices import UnknownPrice
from gateway.semantic_process import running_semantic_process
from gateway.settings import Settings
from gateway.telemetry.logs import use_logs
from gateway.workers import NOT_STARTED, hangups, run_workers
from policies.kinds import KindError
from policies.loader import PolicyError, load_policy
from policies.schema import Policy, Server
from policies.telemetry import Logs


def run_serve(
    path: Path, overrides: Mapping[str, Any], ledger: str | None, *, greeting: str = ""
) -> None:
    """Serve the policy at `path`; exits 1 when it is found wanting.

    `greeting` is printed once requests are taken and the engines of this process serve.
    """
    with _clear_errors():
        policy = with_server(load_policy(path, os.environ), overrides)
        use_logs(policy.telemetry.logs)
        run(policy, Settings(policy_path=path, ledger=ledger), greeting)


def serve_from(settings: Settings, public: socket.socket, admin: socket.socket | None) -> None:
    """Serve as one of several workers, on sockets that its parent has opened."""
    with _clear_errors(status=NOT_STARTED):
        assert settings.policy_path is not None, "a worker is told its policy"
        policy = load_policy(settings.policy_path, os.environ)
        use_logs(policy.telemetry.logs)
        serve_here(policy, settings, public, admin)


@contextmanager
def _clear_errors(*, status: int = 1) -> Iterator[None]:
    """Log to standard error, and end with one clear line when the policy or a port is wrong."""
    use_logs(Logs())
    try:
        yield
    except (PolicyError, UnknownPrice, LedgerError, KindError) as exc:
        print(exc, file=sys.stderr)
        raise SystemExit(status) from None
    except OSError as exc:
        print(f"cannot serve: {exc}", file=sys.stderr)
        raise SystemExit(status) from None


def with_server(policy: Policy, overrides: Mapping[str, Any]) -> Policy:
    """Return the policy with the command line's word on addresses and workers."""
    server = Server.model_validate({**policy.server.model_dump(), **overrides})
    return policy.model_copy(update={"server": server})


def run(policy: Policy, settings: Settings, greeting: str = "") -> None:
    """Serve until interrupted."""
    server = policy.server
    ledger_url = settings.ledger or policy.storage.ledger
    asyncio.run(_prove(ledger_at(spool_of(ledger_url, policy.storage.spool.file))))
    public, admin = listen(server.host, server.port), listen(server.admin_host, server.admin_port)
    listens = f"frugal-gateway listens on {_address(public)} (admin: {_address(admin)})"
    if server.workers == 1:
        serve_here(policy, settings, public, admin, listens=listens, greeting=greeting)
    else:
        print(listens + greeting, file=sys.stderr, flush=True)
        if policy.storage.redis is None:
            _say_what_is_per_worker(server.workers)
        hangups(wait=True)
        asyncio.run(_supervise(policy, settings, public, admin))


async def _prove(ledger: Ledger) -> None:
    """Open the ledger once, and migrate it before several workers would. Raises LedgerError."""
    async with ledger:
        pass


def serve_here(
    policy: Policy,
    settings: Settings,
    public: socket.socket,
    admin: socket.socket | None,
    *,
    listens: str = "",
    greeting: str = "",
) -> None:
    """Serve in this process, on sockets that already listen; say so once each is true."""
    import uvloop

    hangups(wait=True)
    _allow_many_connections()
    apps = create_app(settings, policy)
    servers = {_server(apps.public, policy, listens): public}
    if admin is not None:
        servers[_server(apps.admin, policy)] = admin
    uvloop.run(_serve_all(servers, apps, greeting))


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, often 1,024, to what the system allows us."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """A server that leaves the signals to us, since two of them run in one process."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        # What exists now lives as long as the process: no collection need look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        # Every generator of the request's way is closed by whoever opened it, so the loop need
        # not keep a list of them; one that is dropped is still closed.
        sys.set_asyncgen_hooks(firstiter=None, finalizer=sys.get_asyncgen_hooks().finalizer)
        if self._greeting:
            print(self._greeting, file=sys.stderr, flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signal handlers alone."""
        yield


def _server(app: App, policy: Policy, greeting: str = "") -> _Server:
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=http_protocol(policy.server),
        ws="none",
        lifespan="off",  # both applications share one, which `_serve_all` enters
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever stands at the other end is the client: a header cannot make it a local one.
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(policy.server.drain),
    )
    return _Server(config, greeting)


async def _serve_all(servers: Mapping[_Server, socket.socket], apps: Apps, greeting: str) -> None:
    """Run the servers until a signal tells them to stop; requests under way are finished.

    Another signal, SIGHUP, makes them follow the policy as it is by then.
    """
    reloads: set[asyncio.Task[bool]] = set()

    def stop() -> None:
        apps.leave()
        for server in servers:
            server.force_exit = server.should_exit
            server.should_exit = True

    def begin_reload() -> None:
        task = asyncio.ensure_future(apps.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, begin_reload)
    async with apps.lifespan(), _greeted(apps, greeting):
        hangups(wait=False)
        await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in servers.items()))


@asynccontextmanager
async def _greeted(apps: Apps, greeting: str) -> AsyncIterator[None]:
    """Print a greeting, if there is one, as soon as the engines have loaded."""

    async def greet() -> None:
        await apps.loaded()
        print(greeting, file=sys.stderr, flush=True)

    task = asyncio.create_task(greet()) if greeting else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _supervise(
    policy: Policy, settings: Settings, public: socket.socket, admin: socket.socket
) -> None:
    """Run the engines once and the workers beside them; a worker that dies is replaced."""
    async with (
        running_engines(policy, already=settings.sockets) as sockets,
        running_semantic_process(policy) as semantic,
    ):
        shared = replace(settings, sockets=sockets, semantic=semantic)
        await run_workers(policy.server.workers, shared, public, admin)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as exc:
        raise OSError(
            f"{host}:{port} cannot be listened on ({exc.strerror}); choose another port"
        ) from exc
    sock.listen(2048)
    sock.setblocking(False)
    return sock


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say_what_is_per_worker(workers: int) -> None:
    print(
        f"{workers} workers: the exact cache and single-flight are per worker, so up to {workers} "
        "equal requests may be paid for, and cache.semantic's background_usd_per_day is spent by "
        "each (storage.redis lets them share); the ledger is shared",
        file=sys.stderr,
    )
