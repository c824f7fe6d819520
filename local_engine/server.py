"""The engine as a server of its own: `python -m local_engine.server CHECKPOINT`.

It listens before the model is loaded (`/health` answers 503 until then), and stops
gently: on SIGTERM, or with `--exit-with-stdin` when whoever holds the other end of its
standard input is gone, running requests may end within the drain deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import torch

from local_engine.adapters import Adapters
from local_engine.app import App, Ready
from local_engine.checkpoint import find_checkpoint
from local_engine.drafting import check_pair
from local_engine.engine import Engine
from local_engine.errors import CheckpointError, is_out_of_memory
from local_engine.http1 import Connection, HttpLimits
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import SCHEMES
from local_engine.quant_store import cache_directory
from local_engine.types import EngineLimits, KvFormat

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_WORTH_KEEPING = 64 << 20
_DRAFTED = 4
# What a step takes of prompts: on a GPU so much costs little more than its launches.
_CHUNKS = {False: EngineLimits().prefill_chunk, True: 1024}
_DTYPES = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where to listen, what to serve, and how much at once."""

    checkpoint: str
    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    limits: EngineLimits = field(default_factory=EngineLimits)
    http: HttpLimits = field(default_factory=HttpLimits)
    drain_s: float = 10.0
    adapters: Path | None = None
    draft: str | None = None


_Loaded = tuple[LoadedModel, LoadedModel | None]


class EngineServer:
    """Listen, load, answer, drain."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.app = App(_host_names(settings))
        self.address = ""
        self._connections: dict[Connection, asyncio.Task[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; raises `CheckpointError` where loading fails."""
        async with self._listening():
            loaded = await self._load(stop)
            if loaded is not None:
                await self._serve_model(*loaded, stop)

    async def _serve_model(
        self, model: LoadedModel, draft: LoadedModel | None, stop: asyncio.Event
    ) -> None:
        limits, adapters = self.settings.limits, self._adapters(model)
        async with Engine(model, limits, adapters=adapters, draft=draft) as engine:
            self.app.ready = Ready(engine, self.settings.model_name)
            log.info(
                "serving %s on %s: context %d, loaded in %.1f s",
                self.settings.model_name,
                self.address,
                engine.context,
                model.load_s,
            )
            watch = asyncio.create_task(_wait_failed(engine, stop))
            await stop.wait()
            watch.cancel()
            self.app.is_draining = True
            await engine.stop(self.settings.drain_s)
            await self._finish_connections()
            if engine.failure is not None:
                raise engine.failure

    def _adapters(self, model: LoadedModel) -> Adapters | None:
        """Make the model ready for adapters, and load those that are there."""
        directory = self.settings.adapters
        if directory is None:
            return None
        adapters = Adapters(model.decoder, directory)
        for path in sorted(p for p in directory.iterdir() if p.is_dir()):
            adapters.load(path.name)
        return adapters

    async def _load(self, stop: asyncio.Event) -> _Loaded | None:
        """Load on a daemon thread, so that a stop while loading need not wait for it."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[_Loaded] = loop.create_future()

        def settle(model: _Loaded | None, error: BaseException | None) -> None:
            if result.done():
                return
            if model is None:
                result.set_exception(error or RuntimeError("loading gave no model"))
            else:
                result.set_result(model)

        def load() -> None:
            model, error = None, None
            try:
                model = load_models(self.settings)
            except BaseException as exc:  # handed to whoever waits
                error = exc
            with contextlib.suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(settle, model, error)

        threading.Thread(target=load, name="load", daemon=True).start()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((result, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return result.result() if result.done() else None

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        settings = self.settings
        if settings.uds is not None:
            _remove_stale_socket(settings.uds)
            # Nobody but this user may connect, from the first moment on.
            before = os.umask(0o177)
            try:
                server = await asyncio.start_unix_server(self._accept, settings.uds)
            finally:
                os.umask(before)
            self.address = f"unix:{settings.uds}"
        else:
            server = await asyncio.start_server(self._accept, settings.host, settings.port)
            host, port = server.sockets[0].getsockname()[:2]
            self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        try:
            yield
        finally:
            server.close()
            await self._finish_connections()
            if settings.uds is not None:
                settings.uds.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(reader, writer, self.app, self.settings.http)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # by `_finish_connections`, which waits no longer; asyncio would log a traceback
        finally:
            del self._connections[connection]

    async def _finish_connections(self) -> None:
        """Close idle connections, and give the others a moment to send their last bytes."""
        for connection in list(self._connections):
            connection.close_when_idle()
        tasks = list(self._connections.values())
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=1.0)
            for task in pending:
                task.cancel()


async def _wait_failed(engine: Engine, stop: asyncio.Event) -> None:
    """Stop the server when the engine's thread has died: a fresh process is the cure."""
    while engine.failure is None:  # noqa: ASYNC110 - the thread can set no asyncio event when it dies
        await asyncio.sleep(1.0)
    stop.set()


def _host_names(settings: ServerSettings) -> frozenset[str] | None:
    """Return the names of a loopback server; elsewhere any name may be right."""
    is_local = settings.uds is None and settings.host in _LOOPBACK
    return _LOOPBACK | {"[::1]"} if is_local else None


def _remove_stale_socket(path: Path) -> None:
    """Remove what a killed server left behind, but nothing that is not a socket."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"--uds {path}: exists and is not a socket; choose another path")
        path.unlink()


def _watch_stdin(stop: asyncio.Event) -> None:
    """Set `stop` when standard input ends, which is when the parent process is gone."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _go_first() -> None:
    """Ask the system to end this process before its parent where memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


async def serve(settings: ServerSettings, *, exits_with_stdin: bool = False) -> None:
    """Run a server until SIGTERM, and SIGINT or instead the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if exits_with_stdin:
        # Ctrl-C reaches the whole group; it is for the parent to drain first, then end us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _watch_stdin(stop)
    else:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    await EngineServer(settings).run(stop)


def load_models(settings: ServerSettings) -> _Loaded:
    """Load the model, and the one that is to guess for it; raises `CheckpointError`."""
    try:
        return _load_models(settings)
    except (MemoryError, RuntimeError) as exc:
        if not is_out_of_memory(exc):
            raise
        raise CheckpointError(
            settings.checkpoint,
            "needs more memory than there is left; quantize it or choose a smaller model",
        ) from exc


def _load_models(settings: ServerSettings) -> _Loaded:
    directory = find_checkpoint(settings.checkpoint)
    model = load_model(directory, loading_for(directory, settings.loading))
    if settings.draft is None:
        return model, None
    beside = find_checkpoint(settings.draft)
    draft = load_model(beside, loading_for(beside, settings.loading))
    check_pair(model, draft, beside)
    return model, draft


def loading_for(directory: Path, options: LoadOptions) -> LoadOptions:
    """Keep what is quantized of large checkpoints; a small one is sooner made again."""
    stored = sum(f.stat().st_size for f in directory.glob("*.safetensors"))
    if options.kept_in is not None or stored < _WORTH_KEEPING:
        return options
    return dataclasses.replace(options, kept_in=cache_directory())


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found {text!r}")
    return int(text)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m local_engine.server",
        description="Serve one checkpoint of this machine as an OpenAI-compatible server.",
    )
    parser.add_argument("checkpoint", help="checkpoint directory, demo/NAME, or a hub name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free port")
    parser.add_argument("--uds", type=Path, help="listen on this Unix socket instead")
    parser.add_argument("--model-name", help="the name clients ask for; default: the checkpoint's")
    parser.add_argument("--quantization", choices=SCHEMES, default="none")
    parser.add_argument("--dtype", choices=tuple(_DTYPES), default="auto")
    parser.add_argument("--threads", type=_positive, help="CPU threads; default: half of the cores")
    parser.add_argument(
        "--kv", choices=get_args(KvFormat), default="model", help="int8 halves the cache"
    )
    parser.add_argument(
        "--kv-bytes", type=_positive, default=EngineLimits().kv_bytes, help="what it takes at most"
    )
    parser.add_argument("--max-batch", type=_positive, default=8, help="requests computed at once")
    parser.add_argument("--max-queue", type=_positive, default=64, help="requests that may wait")
    parser.add_argument(
        "--max-context", type=_positive, help="tokens of prompt and answer together"
    )
    parser.add_argument(
        "--prefill-chunk",
        type=_positive,
        help="prompt tokens of a step at most; default: 128, on a GPU 1024",
    )
    parser.add_argument(
        "--guesses",
        type=int,
        choices=range(17),
        metavar="N",
        help="tokens to guess ahead, checked exactly; default: none, or 4 with --draft",
    )
    parser.add_argument(
        "--draft", help="a smaller checkpoint of the same tokens that guesses, not the prompt"
    )
    parser.add_argument(
        "--long", action="store_true", help="the stretched context of models that have two"
    )
    parser.add_argument(
        "--adapters", type=Path, help="directory of LoRA adapters, served by the names in it"
    )
    parser.add_argument("--drain", type=float, default=10.0, help="seconds to finish when stopped")
    parser.add_argument("--niceness", type=int, default=0, help="yield the CPU to others")
    parser.add_argument("--exit-with-stdin", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> ServerSettings:
    """Turn a command line into settings."""
    return ServerSettings(
        checkpoint=options.checkpoint,
        model_name=options.model_name or Path(options.checkpoint).name,
        host=options.host,
        port=options.port,
        uds=options.uds,
        loading=LoadOptions(options.quantization, _DTYPES[options.dtype], is_long=options.long),
        limits=EngineLimits(
            max_batch=options.max_batch,
            kv_bytes=options.kv_bytes,
            kv_format=options.kv,
            max_queue=options.max_queue,
            max_context=options.max_context,
            guesses=_guesses(options),
            prefill_chunk=options.prefill_chunk or _CHUNKS[torch.cuda.is_available()],
        ),
        drain_s=options.drain,
        adapters=options.adapters,
        draft=options.draft,
    )


def _guesses(options: argparse.Namespace) -> int:
    default = 0 if options.draft is None else _DRAFTED
    return default if options.guesses is None else int(options.guesses)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    options = parse_arguments(arguments)
    os.nice(options.niceness)
    if options.exit_with_stdin:
        _go_first()
    torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 2) // 2))
    run = functools.partial(serve, exits_with_stdin=options.exit_with_stdin)
    try:
        asyncio.run(run(settings_of(options)))
    except (CheckpointError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
