"""The engine as the rest of a program sees it: submit, stream, cancel.

One thread owns the model and everything on its device. Commands reach it through a
queue, tokens come back through the event loop of whoever submitted, one wake-up per
step and loop. Neither side ever waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType

from local_engine.adapters import Adapter, Adapters
from local_engine.core import EngineCore, Event
from local_engine.errors import (
    ContextLengthExceeded,
    EngineBusy,
    EngineStopped,
    EngineUnavailable,
    InvalidRequest,
    UnknownAdapter,
)
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.sequence import Sequence
from local_engine.timings import Timings
from local_engine.types import EngineLimits, EngineStats, Finish, GenerationRequest, Token

log = logging.getLogger(__name__)

MAX_TOP_LOGPROBS = 128

_BROKEN = "The engine has failed and answers nothing until it is started again."


class Generation:
    """The tokens of one request as they come; leaving it early cancels the work.

        async with engine.submit(request) as generation:
            async for token in generation: ...
        generation.finish

    Raises `GenerationFailed` where the request broke, `DeadlineExceeded` where it took
    too long, `EngineUnavailable` where the engine itself broke.
    """

    def __init__(self, request: GenerationRequest, cancel: Callable[[str], None]) -> None:
        self.request = request
        self.finish: Finish | None = None
        self._loop = asyncio.get_running_loop()
        self._cancel = cancel
        self._tokens: deque[Token] = deque()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.finish is None:
            self._cancel(self.request.id)

    @property
    def has_tokens(self) -> bool:
        """Tell whether tokens wait to be taken."""
        return bool(self._tokens)

    async def __aiter__(self) -> AsyncIterator[Token]:
        while tokens := await self.take():
            for token in tokens:
                yield token

    async def take(self) -> list[Token]:
        """Wait for at least one token and return all that are there; empty at the end."""
        while not self._tokens and self.finish is None:
            self._changed.clear()
            await self._changed.wait()
        tokens = list(self._tokens)
        self._tokens.clear()
        if not tokens and self.finish is not None:
            self.finish.raise_error()
        return tokens

    def _receive(self, event: Event) -> None:
        if event.token is not None:
            self._tokens.append(event.token)
        self.finish = event.finish
        self._changed.set()


class Engine:
    """A loaded model that answers several requests at once."""

    def __init__(
        self,
        model: LoadedModel,
        limits: EngineLimits | None = None,
        clock: Callable[[], float] = time.perf_counter,
        adapters: Adapters | None = None,
        draft: LoadedModel | None = None,
    ) -> None:
        self.model = model
        self.adapters = adapters
        self.grammars = Grammars(model.tokenizer, model.end_ids, model.config.vocab)
        self.limits = limits or EngineLimits()
        self.failure: BaseException | None = None
        self._clock = clock
        self._core = EngineCore(
            model, self.limits, clock, None if adapters is None else adapters.rows, draft
        )
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[str, Generation] = {}
        self._is_accepting = True
        self._drained = threading.Event()
        self._refused = 0
        # A daemon, so that a stuck kernel cannot keep a stopping process alive.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def __aenter__(self) -> Engine:
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop(deadline_s=0.0)

    @property
    def context(self) -> int:
        """Return how many tokens prompt and answer may have together."""
        return self._core.context

    def stats(self) -> EngineStats:
        """Return the counters since the start, and what is going on now."""
        return self._core.stats(self._refused)

    @property
    def timings(self) -> Timings:
        """Return how long requests and steps took so far."""
        return self._core.timings

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request and return its stream.

        Raises `ContextLengthExceeded`, `InvalidRequest`, `EngineBusy` while the line is
        full, and `EngineStopped`.
        """
        self._check(request)
        adapter = self._adapter(request.adapter)
        sequence = Sequence(request, self.model.tokenizer, self._clock(), adapter)
        generation = Generation(request, self.cancel)
        with self._lock:
            self._check_room(request)
            self._open[request.id] = generation
            self._commands.put(_Command(add=sequence))
        return generation

    def cancel(self, id: str) -> None:
        """End a request at the next step; one that has ended is left alone."""
        self._commands.put(_Command(cancel=id))

    async def stop(self, deadline_s: float) -> None:
        """Take no more requests, let those running end until the deadline, cut the rest."""
        with self._lock:
            self._is_accepting = False
            if not self._open:
                self._drained.set()
        if deadline_s > 0:
            await asyncio.to_thread(self._drained.wait, deadline_s)
        self._commands.put(_Command(stop=True))
        await asyncio.to_thread(self._thread.join)

    def _check(self, request: GenerationRequest) -> None:
        if len(request.prompt) >= self.context:
            raise ContextLengthExceeded(len(request.prompt), self.context)
        vocab = self.model.config.vocab
        if not request.prompt or not all(0 <= t < vocab for t in request.prompt):
            raise InvalidRequest(f"The prompt must hold token ids from 0 to {vocab - 1}.", "prompt")
        room = self.context - len(request.prompt)
        if not 1 <= request.max_tokens <= room:
            raise InvalidRequest(f"max_tokens must be from 1 to {room} here.", "max_tokens")
        if not 0 <= request.top_logprobs <= MAX_TOP_LOGPROBS:
            raise InvalidRequest(f"top_logprobs goes to {MAX_TOP_LOGPROBS}.", "top_logprobs")

    def _adapter(self, name: str) -> Adapter | None:
        adapter = self.adapters.find(name) if name and self.adapters is not None else None
        if name and adapter is None:
            raise UnknownAdapter(name)
        return adapter

    def _check_room(self, request: GenerationRequest) -> None:
        if self.failure is not None:
            raise EngineUnavailable(_BROKEN)
        if not self._is_accepting:
            raise EngineStopped("The engine is stopping and takes no more requests.")
        if request.id in self._open:
            raise InvalidRequest(f"A request with the id {request.id!r} is already running.", "id")
        if len(self._open) >= self.limits.max_batch + self.limits.max_queue:
            self._refused += 1
            raise EngineBusy(len(self._open) - self.limits.max_batch)

    def _run(self) -> None:
        """Own the model: apply commands, step, deliver, until told to stop."""
        try:
            while self._apply_commands():
                if not self._core.is_idle:
                    self._deliver(self._core.step())
        except BaseException as exc:  # the thread's edge: a bug here ends this engine for good
            log.critical("the engine's thread failed", exc_info=exc)
            self.failure = exc
        self._abandon()

    def _abandon(self) -> None:
        """End every request that is still open, queued or running."""
        with self._lock:
            self._is_accepting = False
        with contextlib.suppress(queue.Empty):
            while True:
                command = self._commands.get_nowait()
                if command.add is not None:
                    self._core.add(command.add)
        if self.failure is None:
            self._deliver(self._core.cancel_all())
        else:
            self._deliver(self._core.fail_all(_BROKEN))

    def _apply_commands(self) -> bool:
        """Apply what has been asked since the last step; sleep while there is nothing to do."""
        command = self._next_command()
        cancelled: list[str] = []
        while command is not None:
            if command.stop:
                return False
            if command.add is not None:
                self._core.add(command.add)
            if command.cancel is not None:
                cancelled.append(command.cancel)
            command = self._next_command(waits=False)
        if cancelled:
            self._deliver(self._core.cancel(cancelled))
        return True

    def _next_command(self, *, waits: bool = True) -> _Command | None:
        try:
            return self._commands.get(block=waits and self._core.is_idle)
        except queue.Empty:
            return None

    def _deliver(self, events: Iterable[Event]) -> None:
        """Hand events to the loops that wait for them, one call each."""
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Generation, Event]]]
        by_loop = defaultdict(list)
        with self._lock:
            for event in events:
                id = event.sequence.request.id
                generation = self._open[id]
                by_loop[generation._loop].append((generation, event))
                if event.finish is not None:
                    del self._open[id]
            if not self._open and not self._is_accepting:
                self._drained.set()
        for loop, items in by_loop.items():
            try:
                loop.call_soon_threadsafe(_receive_all, items)
            except RuntimeError:  # that loop is closed: nobody listens any more
                for generation, _ in items:
                    self.cancel(generation.request.id)


def _receive_all(items: list[tuple[Generation, Event]]) -> None:
    for generation, event in items:
        generation._receive(event)


class _Command:
    """One word to the engine's thread."""

    __slots__ = ("add", "cancel", "stop")

    def __init__(
        self, add: Sequence | None = None, cancel: str | None = None, stop: bool = False
    ) -> None:
        self.add = add
        self.cancel = cancel
        self.stop = stop
