"""The engine's HTTP endpoints, free of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local_engine.accelerator import accelerator_state
from local_engine.beam_search import beam_search
from local_engine.body import Body
from local_engine.engine import Engine, Generation
from local_engine.errors import (
    CheckpointError,
    EngineBusy,
    EngineError,
    EngineStopped,
    InvalidRequest,
    Unsupported,
)
from local_engine.http1 import HttpRequest, HttpResponse, error_response, json_response
from local_engine.metrics import render_metrics
from local_engine.openai_reply import ReplyWriter, sse
from local_engine.openai_request import Ask, Served, parse_chat, parse_json, parse_text
from local_engine.types import Finish, Token

log = logging.getLogger(__name__)

# Larger bodies are read on another thread: tokenizing a megabyte takes a second.
_INLINE_BYTES = 32 << 10
# So are those that ask for a form, since compiling it may take as long.
_FORMS = (b'"response_format"', b'"guided_', b'"tool_choice"')
_PATHS = frozenset(
    """/chat/completions /completions /models /health /metrics /load_lora_adapter
    /unload_lora_adapter""".split()  # noqa: SIM905 - reads better than seven quoted words
)
_PORT = re.compile(r":\d*$")


@dataclass(frozen=True, slots=True)
class Ready:
    """A running engine under the name it is served by."""

    engine: Engine
    name: str

    @property
    def served(self) -> Served:
        """Return what requests are read against."""
        engine = self.engine
        adapters = () if engine.adapters is None else tuple(engine.adapters.names)
        return Served(self.name, engine.model, engine.context, engine.grammars, adapters)


class App:
    """Answer requests; until `ready` is set, say that the model is loading.

    `hosts`, where given, are the names a client may call this server by: without that
    check any web page could reach a server on loopback through a name of its own.
    """

    def __init__(self, hosts: frozenset[str] | None = None) -> None:
        self.ready: Ready | None = None
        self.is_draining = False
        self._hosts = hosts

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        host = _PORT.sub("", request.headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts:
            return error_response(403, "This host name is not served here.", code="host_refused")
        try:
            return await self._route(request)
        except EngineError as exc:
            return _error(exc)
        except Exception:  # the edge: a bug must not look like a network failure
            log.exception("a request failed")
            return error_response(500, "The engine failed on this request.", type="server_error")

    async def _route(self, request: HttpRequest) -> HttpResponse:
        path = request.path.rstrip("/")
        match path.removeprefix("/v1"), request.method:
            case "/chat/completions", "POST":
                return await self._complete(request, "chat")
            case "/completions", "POST":
                return await self._complete(request, "text")
            case "/models", "GET":
                return self._models()
            case "/health", "GET":
                return self._health()
            case "/metrics", "GET":
                return self._metrics()
            case (("/load_lora_adapter" | "/unload_lora_adapter") as which, "POST"):
                return await self._change_adapter(request, which)
            case (known, _) if known in _PATHS:
                return error_response(
                    405, f"{request.method} is not allowed on {path}.", code="method_not_allowed"
                )
        return error_response(404, f"There is no {path or '/'} here.", code="not_found")

    def _health(self) -> HttpResponse:
        if self.is_draining:
            return json_response({"status": "draining"}, 503)
        if self.ready is None:
            return json_response({"status": "loading"}, 503)
        if self.ready.engine.failure is not None:
            return json_response({"status": "failed"}, 503)
        return json_response({"status": "ok"})

    def _metrics(self) -> HttpResponse:
        if self.ready is None:
            text = render_metrics(None)
        else:
            engine = self.ready.engine
            state = accelerator_state(engine.model.decoder.device)
            text = render_metrics(engine.stats(), engine.timings, state)
        return HttpResponse(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def _models(self) -> HttpResponse:
        if self.ready is None:
            return _loading()
        served = self.ready.served
        common = {"object": "model", "created": 0, "owned_by": "local"}
        common["context_length"] = served.context
        models = [{"id": served.name, **common}]
        models += [{"id": name, **common, "parent": served.name} for name in served.adapters]
        return json_response({"object": "list", "data": models})

    async def _change_adapter(self, request: HttpRequest, which: str) -> HttpResponse:
        """Load or unload the adapter that `lora_name` names, as with vLLM."""
        ready = self.ready
        if ready is None or self.is_draining:
            return _loading()
        adapters = ready.engine.adapters
        if adapters is None:
            raise Unsupported("This server was started without --adapters.")
        name = Body(parse_json(request.body)).text("lora_name", "")
        if name == ready.name:
            raise InvalidRequest(f"{name!r} is the model itself.", "lora_name")
        try:
            await asyncio.to_thread(adapters.load if which[1] == "l" else adapters.unload, name)
        except CheckpointError as exc:
            raise InvalidRequest(str(exc), "lora_name") from exc
        return json_response({"adapters": adapters.names})

    async def _complete(self, request: HttpRequest, kind: str) -> HttpResponse:
        ready = self.ready
        if ready is None or self.is_draining:
            return _loading()
        id = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}"
        ask = await self._read(request, ready, id, kind)
        writer = ReplyWriter(
            ask,
            ready.engine.model.tokenizer,
            id=id,
            model=ask.requests[0].adapter or ready.name,
            created=int(time.time()),
        )
        if ask.beams:
            return await self._searched(ready.engine, ask, writer)
        async with contextlib.AsyncExitStack() as stack:
            generations = [
                await stack.enter_async_context(ready.engine.submit(r)) for r in ask.requests
            ]
            if not ask.streams:
                return await self._whole(generations, writer)
            # The stream now owns the generations, and cancels them when it is closed.
            owned = stack.pop_all()
            body = _stream(generations, writer, owned)
            return HttpResponse(200, body, "text/event-stream", {"cache-control": "no-cache"})

    async def _read(self, request: HttpRequest, ready: Ready, id: str, kind: str) -> Ask:
        def parse() -> Ask:
            body = parse_json(request.body)
            if kind == "text":
                return parse_text(body, ready.served, id)
            return parse_chat(body, ready.served, id, datetime.now())

        is_quick = len(request.body) <= _INLINE_BYTES and not any(f in request.body for f in _FORMS)
        return parse() if is_quick else await asyncio.to_thread(parse)

    async def _searched(self, engine: Engine, ask: Ask, writer: ReplyWriter) -> HttpResponse:
        """Search each prompt's best answers, one prompt after another."""
        firsts = range(0, len(ask.requests), ask.copies)
        for first, rules in zip(firsts, ask.beams, strict=True):
            found = await beam_search(engine, ask.requests[first], rules, ask.copies)
            for place, answer in enumerate(found, first):
                writer.choices[place].add(answer.tokens, answer.finish)
        return json_response(writer.whole())

    async def _whole(self, generations: Sequence[Generation], writer: ReplyWriter) -> HttpResponse:
        async for index, tokens, finish in _merged(generations):
            writer.choices[index].add(tokens, finish)
        return json_response(writer.whole())


async def _stream(
    generations: Sequence[Generation], writer: ReplyWriter, owned: contextlib.AsyncExitStack
) -> AsyncIterator[bytes]:
    """Write the generations as server-sent events; a failure ends them with an error event."""
    async with owned:
        try:
            async for index, tokens, finish in _merged(generations):
                if data := writer.chunks(index, tokens, finish):
                    yield data
        except EngineError as exc:
            yield sse(_error_body(exc))
            return
        yield writer.last_chunks()


async def _merged(
    generations: Sequence[Generation],
) -> AsyncIterator[tuple[int, list[Token], Finish | None]]:
    """Yield what any of the generations gained, as it comes, each ending with its finish."""
    if len(generations) == 1:
        finish = None
        while finish is None:
            tokens = await generations[0].take()
            finish = _finish_of(generations[0])
            yield 0, tokens, finish
        return
    takes = {asyncio.create_task(g.take()): n for n, g in enumerate(generations)}
    try:
        while takes:
            done, _ = await asyncio.wait(takes, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = takes.pop(task)
                tokens = task.result()
                finish = _finish_of(generations[index])
                if finish is None:
                    takes[asyncio.create_task(generations[index].take())] = index
                yield index, tokens, finish
    finally:
        for task in takes:
            task.cancel()


def _finish_of(generation: Generation) -> Finish | None:
    """Return the finish once every token is taken; raise where it is no answer."""
    finish = None if generation.has_tokens else generation.finish
    if finish is not None:
        finish.raise_error()
    if finish is not None and finish.reason == "cancelled":
        raise EngineStopped("The engine stopped before the answer was complete.")
    return finish


def _loading() -> HttpResponse:
    return error_response(
        503,
        "The engine is not ready: it loads its model or is stopping.",
        type="server_error",
        code="engine_unavailable",
        headers={"retry-after": "1"},
    )


def _error_body(exc: EngineError) -> dict[str, Any]:
    param = exc.param if isinstance(exc, InvalidRequest) else None
    return {"error": {"message": str(exc), "type": exc.type, "param": param, "code": exc.code}}


def _error(exc: EngineError) -> HttpResponse:
    retry = {"retry-after": str(exc.retry_after_s)} if isinstance(exc, EngineBusy) else {}
    return json_response(_error_body(exc), exc.status, retry)
