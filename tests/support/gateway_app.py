"""A gateway to talk to: in this process over real sockets, or as the command `frugal serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from gateway.app import create_app
from gateway.cli.serve import listen
from gateway.clock import Clock
from gateway.departure import WHEN_GONE
from gateway.edge import App, Message, Receive, Scope, Send
from gateway.http import http_protocol
from gateway.money.reports import request_rows
from gateway.settings import Settings
from gateway.wire import Provider
from policies.loader import parse_policy

READY_WITHIN_S = 60.0
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger of one gateway, read from outside."""

    path: Path

    @property
    def url(self) -> str:
        """Return what `--ledger` takes."""
        return f"sqlite:///{self.path}"

    def entries(self) -> list[dict[str, Any]]:
        """Return one row a request, oldest first."""
        return request_rows(self.url)[::-1]

    def entry(self) -> dict[str, Any]:
        """Return the only row."""
        (row,) = self.entries()
        return row

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        """Return the attempts of one request, in order."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            query = "SELECT * FROM attempt WHERE request_id = ? ORDER BY seq"
            return [dict(row) for row in connection.execute(query, (request_id,))]

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many requests are in the ledger, and return them."""
        async with asyncio.timeout(20):
            while len(rows := self.entries()) < count:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        return rows


class Watched:
    """An application, and how many of its requests wait for an answer or have lost their client.

    A request is under way once its body was read and the application watches its client.
    """

    def __init__(self, app: App) -> None:
        self.under_way = 0
        self.gone = 0
        self.calls = 0
        self._app = app
        self.open_now = getattr(app, "open_now", None)
        self.telling = self._watching
        self._news = asyncio.Condition()
        self._notes: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        self.calls += 1
        has_body = False
        if (extensions := scope.get("extensions")) and WHEN_GONE in extensions:
            told = self._watching(extensions[WHEN_GONE])
            scope["extensions"] = {**extensions, WHEN_GONE: told}

        async def receive_watched() -> Message:
            nonlocal has_body
            if has_body:
                await self._count("under_way", 1)
            message = await receive()
            has_body = has_body or message["type"] == "http.request"
            if message["type"] == "http.disconnect":
                await self._count("gone", 1)
            return message

        await self._app(scope, receive_watched, send)

    def _watching(self, tell: Callable[[Callable[[], None] | None], None]) -> Any:
        """Return the server's own extension, with both moments counted."""

        def tell_watched(act: Callable[[], None] | None) -> None:
            if act is None:
                tell(None)
                return
            self._note("under_way")

            def gone() -> None:
                self._note("gone")
                act()

            tell(gone)

        return tell_watched

    def _note(self, name: str) -> None:
        task = asyncio.ensure_future(self._count(name, 1))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def until(self, name: str, count: int) -> None:
        """Wait until a count is reached."""
        async with self._news, asyncio.timeout(20):
            await self._news.wait_for(lambda: getattr(self, name) >= count)

    async def _count(self, name: str, more: int) -> None:
        async with self._news:
            setattr(self, name, getattr(self, name) + more)
            self._news.notify_all()


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway in this process, and a client of it."""

    port: int
    client: httpx.AsyncClient
    admin: httpx.AsyncClient
    books: Books
    watched: Watched
    reload: Callable[[], Awaitable[bool]]

    @property
    def url(self) -> str:
        """Return the address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    async def chat(
        self, prompt: str = "hi", *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> httpx.Response:
        """Ask and return the answer; a stream is read to its end."""
        return await self.client.post(
            "/v1/chat/completions", json=asking(prompt, **members), headers=headers
        )

    async def until_under_way(self, count: int) -> None:
        """Wait until so many requests have been taken in and wait for their answers."""
        await self.watched.until("under_way", count)

    async def until_gone(self, count: int) -> None:
        """Wait until the gateway has noticed that so many clients have left."""
        await self.watched.until("gone", count)


def asking(prompt: str = "hi", model: str = "auto", **members: Any) -> dict[str, Any]:
    """Return a request's body."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **members}


def events_of(response: httpx.Response | str) -> list[Any]:
    """Return the events of a stream as parsed JSON, and `[DONE]` as that text."""
    text = response if isinstance(response, str) else response.text
    payloads = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [p if p == "[DONE]" else json.loads(p) for p in payloads]


def text_of(events: list[Any]) -> str:
    """Return what the first choice of a stream says."""
    deltas = [c["delta"] for e in events if e != "[DONE]" for c in e.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


@contextlib.asynccontextmanager
async def serving(
    policy: str,
    folder: Path,
    *,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock | None = None,
    env: Mapping[str, str] | None = None,
    path: Path | None = None,
    ledger_options: str = "",
    ledger: str | None = None,
) -> AsyncIterator[Gateway]:
    """Serve a policy's text on a free port of loopback, with the ledger in `folder`.

    A reload reads the policy from `path`. With another `ledger`, the policy's
    spool should be `ledger.db`.
    """
    books = Books(folder / "ledger.db")
    checked = parse_policy(policy, name="policy.yaml", env=env or {}, folder=folder)
    apps = create_app(
        Settings(path, ledger=ledger or books.url + ledger_options),
        checked,
        providers=providers,
        clock=clock,
    )
    watched = Watched(apps.public)
    http = http_protocol(checked.server)
    config = uvicorn.Config(watched, http=http, lifespan="on", log_config=None, proxy_headers=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    sock = listen("127.0.0.1", 0)
    await server.startup(sockets=[sock])
    assert server.started, "the gateway did not start"
    port: int = sock.getsockname()[1]
    try:
        async with (
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, timeout=20
            ) as client,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(apps.admin), base_url="http://127.0.0.1"
            ) as admin,
        ):
            yield Gateway(port, client, admin, books, watched, apps.reload)
    finally:
        await server.shutdown(sockets=[sock])


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    """Start an ASGI application and stop it, as a server does."""
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(_until_told(app, scope, told, said))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await told.put({"type": "lifespan.shutdown"})
        await running


async def _until_told(
    app: App, scope: Scope, told: asyncio.Queue[Message], said: asyncio.Queue[Message]
) -> None:
    await app(scope, told.get, said.put)


# As the command runs it


@dataclass(frozen=True, slots=True)
class Served:
    """A running `frugal serve`."""

    process: subprocess.Popen[bytes]
    url: str
    admin_url: str
    books: Books
    log: Path

    @property
    def port(self) -> int:
        """Return the public port."""
        return int(self.url.rpartition(":")[2])

    def said(self) -> str:
        """Return what it has logged so far."""
        return self.log.read_text()

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the public port."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=30, **options)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


def frugal(*arguments: str) -> list[str]:
    """Return the command line of `frugal`."""
    return [sys.executable, "-c", "from gateway.cli.main import main; main()", *arguments]


@contextlib.contextmanager
def frugal_serve(
    policy: str,
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    ledger: str | None = None,
) -> Iterator[Served]:
    """Run `frugal serve` on free ports; yield it once it takes requests."""
    path = folder / "policy.yaml"
    path.write_text(policy)
    books, log = Books(folder / "ledger.db"), folder / "serve.log"
    options = ("--port", "0", "--admin-port", "0", "--ledger", ledger or books.url, *arguments)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            frugal("serve", str(path), *options),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=folder,
        )
    try:
        url, admin_url = _addresses(process, log)
        _until_ready(process, url, log)
        yield Served(process, url, admin_url, books, log)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        if process.poll() is None:
            process.kill()
            process.wait(timeout=20)


def _addresses(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    for _ in _looks(process, log):
        for line in log.read_text().splitlines():
            if "listens on " in line:
                said = line.partition("listens on ")[2]
                url, _, admin = said.partition(" (admin: ")
                return url, admin.rstrip(")")
    raise AssertionError(f"it never said where it listens: {log.read_text()}")


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in _looks(process, log):
        try:
            with opener.open(f"{url}/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            continue
    raise AssertionError(f"it was not ready in time: {log.read_text()}")


def _looks(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Come round until the time is up; a process that ended is an error at once."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        yield
        assert process.poll() is None, f"it ended with {process.returncode}: {log.read_text()}"
        time.sleep(0.02)
