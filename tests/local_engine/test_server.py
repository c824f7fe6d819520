"""The server end to end: real sockets, the real OpenAI client, raw bytes where they matter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from local_engine import server as server_module
from local_engine.errors import CheckpointError
from local_engine.http1 import HttpLimits
from local_engine.server import EngineServer, ServerSettings, parse_arguments, settings_of
from local_engine.supervise import child_environment
from local_engine.types import EngineLimits
from tests.local_engine.support import eventually

Checkpoint = Callable[[str], Path]
HELLO: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "the fox"}]}
GREEDY = {**HELLO, "temperature": 0, "max_tokens": 12, "ignore_eos": True}
ENDLESS = {**HELLO, "max_tokens": 490, "ignore_eos": True, "stream": True}


@contextlib.asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[EngineServer]:
    server, stop = EngineServer(settings), asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    try:
        await eventually(lambda: server.app.ready is not None or task.done())
        yield server
    finally:
        stop.set()
        await task


@pytest.fixture
def settings(checkpoint: Checkpoint) -> ServerSettings:
    limits = EngineLimits(max_batch=4, max_queue=2)
    return ServerSettings(str(checkpoint("llama")), "tiny", port=0, limits=limits, drain_s=0.0)


@pytest.fixture
async def server(settings: ServerSettings) -> AsyncIterator[EngineServer]:
    async with serving(settings) as running:
        yield running


@pytest.fixture
async def http(server: EngineServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.address, timeout=30) as client:
        yield client


@pytest.fixture
async def client(server: EngineServer) -> AsyncIterator[openai.AsyncOpenAI]:
    base = f"{server.address}/v1"
    async with openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0) as made:
        yield made


def events_of(text: str) -> list[dict[str, Any]]:
    assert text.endswith("data: [DONE]\n\n")
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines[:-1]]


async def open_socket(server: EngineServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.address.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(os.environ, 1),
    )


def raw_post(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


async def test_whole_answer_reaches_the_openai_client(client: openai.AsyncOpenAI) -> None:
    reply = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "text", "text": "the fox"}]}],
        temperature=0,
        max_completion_tokens=12,
        logprobs=True,
        top_logprobs=3,
        n=2,
        extra_body={"ignore_eos": True, "frugal": {"token_stats": True}},
    )

    first, second = reply.choices
    assert first.message.content == second.message.content
    assert first.finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 24
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    spelled = bytes(b for entry in first.logprobs.content for b in entry.bytes or [])
    assert spelled.decode(errors="replace") == first.message.content
    assert all(len(entry.top_logprobs) == 3 for entry in first.logprobs.content)
    frugal = (reply.model_extra or {})["frugal"]
    assert {k: len(v) for k, v in frugal["token_stats"].items()} == {
        "logprobs": 24,
        "margins": 24,
        "entropies": 24,
    }
    assert frugal["compute_s"] > 0 <= frugal["queue_s"]


async def test_streamed_answer_equals_the_whole_one(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    whole = (await http.post("/v1/chat/completions", json=GREEDY)).json()
    stream = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "the fox"}],
        temperature=0,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [chunk async for chunk in stream]

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump(exclude_none=True) == whole["usage"]


async def test_stream_carries_one_statistic_per_token(http: httpx.AsyncClient) -> None:
    body = {**GREEDY, "stream": True, "logprobs": True, "frugal": {"token_stats": True}}
    whole = (await http.post("/v1/chat/completions", json={**body, "stream": False})).json()
    events = events_of((await http.post("/v1/chat/completions", json=body)).text)

    joined: dict[str, list[float]] = {"logprobs": [], "margins": [], "entropies": []}
    entries: list[dict[str, Any]] = []
    for event in events:
        choice = event["choices"][0]
        entries += (choice["logprobs"] or {}).get("content", [])
        if choice["delta"].get("content"):
            assert event["frugal"]["token_stats"]["logprobs"]
        for key, values in event.get("frugal", {}).get("token_stats", {}).items():
            joined[key] += values
    assert joined == whole["frugal"]["token_stats"]
    assert len(joined["logprobs"]) == 12
    assert entries == whole["choices"][0]["logprobs"]["content"]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert events[-1]["frugal"]["compute_s"] > 0
    assert "usage" not in events[0]


async def test_end_token_counts_in_the_statistics_of_the_last_chunk(
    http: httpx.AsyncClient,
) -> None:
    body = {**HELLO, "logit_bias": {"2": 100}, "logprobs": True, "frugal": {"token_stats": True}}
    whole = (await http.post("/v1/chat/completions", json=body)).json()
    streamed = events_of(
        (await http.post("/v1/chat/completions", json={**body, "stream": True})).text
    )

    assert whole["choices"][0]["message"]["content"] == ""
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["choices"][0]["logprobs"]["content"] == []
    assert whole["usage"]["completion_tokens"] == 1
    assert len(whole["frugal"]["token_stats"]["logprobs"]) == 1
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(streamed[-1]["frugal"]["token_stats"]["logprobs"]) == 1


async def test_stop_string_cuts_text_and_its_logprobs(http: httpx.AsyncClient) -> None:
    plain = (await http.post("/v1/chat/completions", json={**GREEDY, "max_tokens": 40})).json()
    text = plain["choices"][0]["message"]["content"]
    stop = text[8:11]
    body = {**GREEDY, "max_tokens": 40, "stop": [stop], "logprobs": True, "stream": True}
    events = events_of((await http.post("/v1/chat/completions", json=body)).text)

    choices = [e["choices"][0] for e in events]
    shown = "".join(c["delta"].get("content", "") for c in choices)
    entries = [t for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
    assert shown == text[: text.index(stop)]
    assert choices[-1]["finish_reason"] == "stop"
    spelled = bytes(b for e in entries for b in e["bytes"]).decode(errors="replace")
    assert spelled.startswith(shown[:-1])
    assert len(spelled) < len(shown) + 8


async def test_choices_of_one_stream_are_told_apart(http: httpx.AsyncClient) -> None:
    body = {**HELLO, "n": 3, "seed": 5, "max_tokens": 10, "ignore_eos": True}
    whole = (await http.post("/v1/chat/completions", json=body)).json()
    events = events_of(
        (await http.post("/v1/chat/completions", json={**body, "stream": True})).text
    )

    texts = ["", "", ""]
    finals = []
    for event in events:
        choice = event["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            finals.append((choice["index"], event["frugal"]["compute_s"] > 0))
    assert texts == [c["message"]["content"] for c in whole["choices"]]
    assert len(set(texts)) == 3
    assert sorted(finals) == [(0, True), (1, True), (2, True)]


async def test_text_completion_speaks_the_older_shape(client: openai.AsyncOpenAI) -> None:
    reply = await client.completions.create(
        model="tiny",
        prompt=["the fox", "the dog"],
        max_tokens=5,
        temperature=0,
        logprobs=2,
        extra_body={"ignore_eos": True},
    )
    by_ids = await client.completions.create(
        model="tiny", prompt=[7, 8, 9], max_tokens=2, stream=True, extra_body={"ignore_eos": True}
    )
    text = "".join([c.choices[0].text async for c in by_ids])

    assert [c.index for c in reply.choices] == [0, 1]
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 10
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert reply.choices[0].text.startswith("".join((logprobs.tokens or [])[:3]))
    assert len(logprobs.token_logprobs or []) == 5
    assert (logprobs.text_offset or [])[:2] == [0, len((logprobs.tokens or [""])[0])]
    assert all(len(top) <= 2 for top in logprobs.top_logprobs or [])
    assert text


async def test_unix_socket_serves_the_same(settings: ServerSettings, tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    async with serving(replace(settings, uds=path)):
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            models = (await client.get("/v1/models")).json()
            reply = (await client.post("/v1/chat/completions", json=GREEDY)).json()
        mode = path.stat().st_mode & 0o777

    assert models["data"][0]["id"] == "tiny"
    assert models["data"][0]["context_length"] == 512
    assert reply["usage"]["completion_tokens"] == 12
    assert mode == 0o600
    assert not path.exists()


async def test_stale_socket_is_replaced_but_a_file_is_not(
    settings: ServerSettings, tmp_path: Path
) -> None:
    path = tmp_path / "e.sock"
    (await asyncio.start_unix_server(lambda r, w: None, path)).close()
    async with serving(replace(settings, uds=path)) as server:
        assert server.address.endswith("e.sock")
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="not a socket"):
        await EngineServer(replace(settings, uds=path)).run(asyncio.Event())

    assert path.read_text() == "precious"


async def test_client_that_leaves_cancels_its_generation(server: EngineServer) -> None:
    assert server.app.ready is not None
    engine = server.app.ready.engine
    reader, writer = await open_socket(server)
    writer.write(raw_post(ENDLESS))
    await reader.readuntil(b"content")
    writer.close()
    await eventually(lambda: engine.stats().cancelled == 1)

    assert engine.stats().running == 0
    assert engine.stats().completion_tokens < 490


async def test_client_that_leaves_cancels_a_whole_answer_too(server: EngineServer) -> None:
    assert server.app.ready is not None
    engine = server.app.ready.engine
    _, writer = await open_socket(server)
    writer.write(raw_post({**ENDLESS, "stream": False, "n": 2}))
    await eventually(lambda: engine.stats().running == 2)
    writer.close()
    await eventually(lambda: engine.stats().cancelled == 2)


async def test_full_line_answers_429_with_retry_after(
    server: EngineServer, http: httpx.AsyncClient
) -> None:
    _, writer = await open_socket(server)
    writer.write(raw_post({**ENDLESS, "n": 6}))
    ready = server.app.ready
    assert ready is not None
    await eventually(lambda: ready.engine.stats().running == 4)
    refused = await http.post("/v1/chat/completions", json=HELLO)
    writer.close()

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "engine_overloaded"


async def test_refusal_of_a_later_choice_cancels_the_earlier_ones(
    server: EngineServer, http: httpx.AsyncClient
) -> None:
    refused = await http.post("/v1/chat/completions", json={**HELLO, "n": 7})
    ready = server.app.ready
    assert ready is not None
    await eventually(lambda: ready.engine.stats().running == ready.engine.stats().waiting == 0)

    assert refused.status_code == 429


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", None),
        (
            {"messages": [{"role": "user", "content": "x " * 900}]},
            400,
            "context_length_exceeded",
            "messages",
        ),
        ({"tools": [{"type": "function"}]}, 400, "invalid_value", "tools[0]"),
        ({"response_format": {"type": "xml"}}, 400, "unsupported", "response_format"),
        ({"guided_regex": "("}, 400, "invalid_value", "guided_regex"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"temperature": 3}, 400, "invalid_value", "temperature"),
        ({"stop": [""]}, 400, "invalid_value", "stop"),
        ({"top_logprobs": 2}, 400, "invalid_value", "top_logprobs"),
    ],
)
async def test_bad_requests_are_named(
    http: httpx.AsyncClient, change: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    reply = await http.post("/v1/chat/completions", json={**HELLO, **change})

    assert reply.status_code == status
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


async def test_best_of_returns_the_likeliest_answers(http: httpx.AsyncClient) -> None:
    body = {"prompt": "the fox", "max_tokens": 12, "seed": 3, "logprobs": 0, "ignore_eos": True}
    every = (await http.post("/v1/completions", json={**body, "n": 4})).json()
    best = (await http.post("/v1/completions", json={**body, "n": 2, "best_of": 4})).json()

    def likelihood(choice: dict[str, Any]) -> float:
        return sum(choice["logprobs"]["token_logprobs"])

    wanted = sorted(every["choices"], key=likelihood, reverse=True)[:2]
    assert [c["text"] for c in best["choices"]] == [c["text"] for c in wanted]
    assert [c["index"] for c in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == 48


async def test_a_form_asked_for_over_http_is_kept(http: httpx.AsyncClient) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
    reply = (
        await http.post("/v1/chat/completions", json={**HELLO, "response_format": form})
    ).json()

    assert reply["choices"][0]["message"]["content"] in ('"yes"', '"no"')
    assert reply["choices"][0]["finish_reason"] == "stop"


async def test_unknown_paths_and_methods_are_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/nothing")).status_code == 404
    assert (await http.get("/v1/chat/completions")).status_code == 405
    assert (await http.post("/health")).status_code == 405


async def test_a_foreign_name_for_loopback_is_refused(http: httpx.AsyncClient) -> None:
    for name, status in {
        "evil.example:80": 403,
        "localhost": 200,
        "127.0.0.1:1": 200,
        "[::1]:2": 200,
        "[::1]": 200,
    }.items():
        reply = await http.get("/health", headers={"host": name})
        assert reply.status_code == status


async def test_metrics_count_what_was_done(http: httpx.AsyncClient) -> None:
    await http.post("/v1/chat/completions", json=GREEDY)
    text = (await http.get("/metrics")).text

    assert "frugal_engine_ready 1\n" in text
    assert "frugal_engine_completion_tokens_total 12\n" in text
    assert "frugal_engine_requests_finished_total 1\n" in text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    for name, count in {"time_to_first_token": 1, "time_per_output_token": 1, "queue": 1}.items():
        family = families[f"frugal_engine_{name}_seconds"]
        values = {s.name.removeprefix(family.name): s.value for s in family.samples}
        assert (family.type, values["_count"]) == ("histogram", count)
        assert values["_sum"] > 0
        assert family.samples[-3].labels["le"] == "+Inf"
    batch = families["frugal_engine_batch_size"].samples
    assert next(s.value for s in batch if s.name.endswith("_count")) == 12


async def test_health_answers_before_the_model_is_loaded(settings: ServerSettings) -> None:
    server = EngineServer(settings)
    async with server._listening(), httpx.AsyncClient(base_url=server.address) as client:
        health = await client.get("/health")
        models = await client.get("/v1/models")
        reply = await client.post("/v1/chat/completions", json=HELLO)
        metrics = await client.get("/metrics")

    assert (health.status_code, health.json()) == (503, {"status": "loading"})
    assert models.status_code == reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert metrics.text.endswith("frugal_engine_ready 0\n")


async def test_stopping_finishes_what_runs_within_the_deadline(settings: ServerSettings) -> None:
    async with serving(replace(settings, drain_s=60.0)) as server:
        reader, writer = await open_socket(server)
        writer.write(raw_post({**ENDLESS, "max_tokens": 100}))
        await reader.readuntil(b"content")
        rest = asyncio.create_task(reader.read())
    text = (await rest).decode()
    writer.close()

    assert '"finish_reason":"length"' in text
    assert "data: [DONE]" in text


async def test_stopping_without_patience_ends_streams_with_an_error(
    settings: ServerSettings,
) -> None:
    async with serving(settings) as server:
        reader, writer = await open_socket(server)
        writer.write(raw_post(ENDLESS))
        await reader.readuntil(b"content")
    text = (await reader.read()).decode()
    writer.close()

    assert "[DONE]" not in text
    assert '"error"' in text
    assert "engine_stopping" in text


async def test_a_broken_engine_ends_its_server_so_that_a_fresh_one_can_start(
    settings: ServerSettings,
) -> None:
    server = EngineServer(settings)
    task = asyncio.create_task(server.run(asyncio.Event()))
    await eventually(lambda: server.app.ready is not None)
    assert server.app.ready is not None
    server.app.ready.engine.model.decoder.layers = [None]  # type: ignore[list-item]
    async with httpx.AsyncClient(base_url=server.address) as client:
        reply = await client.post("/v1/chat/completions", json=HELLO)
        health = await client.get("/health")

    assert reply.status_code == health.status_code == 503
    with pytest.raises(AttributeError):
        await task


async def test_a_checkpoint_that_cannot_load_ends_the_server(
    settings: ServerSettings, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        await EngineServer(replace(settings, checkpoint=str(tmp_path))).run(asyncio.Event())


async def test_a_model_that_memory_does_not_hold_is_named(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "load_model", lambda *_: torch.empty(1 << 60))

    with pytest.raises(CheckpointError, match="more memory than there is left"):
        await EngineServer(settings).run(asyncio.Event())


async def test_body_over_the_limit_is_refused_unread(settings: ServerSettings) -> None:
    async with (
        serving(replace(settings, http=HttpLimits(body_bytes=1000))) as server,
        httpx.AsyncClient(base_url=server.address) as client,
    ):
        reply = await client.post("/v1/chat/completions", content=b"x" * 2000)

    assert reply.status_code == 413


async def test_command_serves_over_tcp_and_ends_on_sigterm(checkpoint: Checkpoint) -> None:
    arguments = ("--port", "0", "--model-name", "tiny", "--threads", "1", "--dtype", "bfloat16")
    process = await start("local_engine.server", str(checkpoint("llama")), *arguments)
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while "http://" not in (line := (await process.stderr.readline()).decode()):
            assert line, "it ended before it listened"
    address = line.split(" on ")[1].split(": ")[0]
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        reply = await client.post("/v1/chat/completions", json=GREEDY)
    process.terminate()

    assert reply.json()["usage"]["completion_tokens"] == 12
    assert await process.wait() == 0


def test_limits_on_the_command_line_start_at_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["x", "--max-batch", "0"])

    assert "expected a whole number from 1, found '0'" in capsys.readouterr().err
    assert parse_arguments(["x", "--max-batch", "3"]).max_batch == 3


def test_memory_of_keys_and_values_is_told_on_the_command_line() -> None:
    limits = settings_of(parse_arguments(["x", "--kv", "int8", "--kv-bytes", "65536"])).limits

    assert limits == EngineLimits(kv_format="int8", kv_bytes=65536)


async def test_command_tells_a_bad_checkpoint_from_misuse(tmp_path: Path) -> None:
    broken = await start("local_engine.server", str(tmp_path), "--port", "0")
    misused = await start("local_engine.server", str(tmp_path), "--quantization", "int3")
    (_, why), (_, usage) = await asyncio.gather(broken.communicate(), misused.communicate())

    assert (broken.returncode, misused.returncode) == (1, 2)
    assert why.decode().startswith(f"{tmp_path / 'config.json'}: cannot be read")
    assert b"int3" in usage


async def test_a_draft_that_is_served_beside_changes_no_answer(
    settings: ServerSettings, checkpoint: Checkpoint
) -> None:
    limits = replace(settings.limits, guesses=3)
    draft = str(checkpoint("qwen2"))
    told = []
    for one in (settings, replace(settings, limits=limits, draft=draft)):
        async with (
            serving(one) as server,
            httpx.AsyncClient(base_url=server.address, timeout=30) as http,
        ):
            answer = (await http.post("/v1/chat/completions", json=GREEDY)).json()
            metrics = (await http.get("/metrics")).text
        told.append(answer["choices"][0]["message"]["content"])
        guessed = re.search(r"^frugal_engine_guessed_tokens_total (\d+)$", metrics, re.MULTILINE)
        assert guessed is not None

    assert told[0] == told[1]
    assert int(guessed[1]) > 0


async def test_a_draft_of_other_tokens_is_refused_at_the_start(settings: ServerSettings) -> None:
    wrong = replace(settings, draft="demo/tiny")

    with pytest.raises(CheckpointError, match="has other tokens"):
        async with serving(wrong):
            pass


def test_a_draft_guesses_some_tokens_unless_told_how_many() -> None:
    def guesses(*arguments: str) -> int:
        return settings_of(parse_arguments(["demo/small", *arguments])).limits.guesses

    assert guesses() == 0
    assert guesses("--draft", "demo/tiny") > 0
    assert guesses("--draft", "demo/tiny", "--guesses", "7") == 7
    assert guesses("--guesses", "2") == 2
