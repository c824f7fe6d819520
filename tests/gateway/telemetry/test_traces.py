from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as conventions

from gateway.telemetry import traces
from gateway.telemetry.traces import Tracing
from policies.telemetry import Traces
from tests.support.gateway_app import serving
from tests.support.policies import two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream, answer

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = PARENT[:-2] + "00"
SAID = "my key is sk-abcdefghijklmnop123456, tell me a secret"


def _spans(received):
    body = received.body
    if received.headers.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    elif received.headers.get("content-encoding") == "deflate":
        body = zlib.decompress(body)
    told = ExportTraceServiceRequest.FromString(body)
    return [s for r in told.resource_spans for scope in r.scope_spans for s in scope.spans]


def _attributes(span):
    found = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def _policy(small, large, collector, **rules):
    whole = json.loads(two_tiers(small.url, large.url))
    endpoint = collector.url.removesuffix("/v1")
    whole["telemetry"] = {"traces": {"endpoint": endpoint, "sample": 1, **rules}}
    return json.dumps(whole)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(traces, "EVERY_S", 0.01)


@pytest.fixture
async def collector():
    taken = answer(b"", content_type="application/x-protobuf")
    async with ScriptedUpstream([[taken]]) as server:
        yield server


@pytest.fixture
async def small():
    async with ScriptedUpstream(Says("hm", logprobs=(-3.0,))) as server:
        yield server


@pytest.fixture
async def large():
    async with ScriptedUpstream(Says("a good answer", tokens=(10, 4))) as server:
        yield server


async def _collected(collector, count):
    await collector.until(lambda: sum(len(_spans(r)) for r in collector.requests) >= count)
    return [span for received in collector.requests for span in _spans(received)]


async def test_an_escalated_request_is_a_span_and_one_for_each_call(
    tmp_path, collector, small, large
):
    async with serving(_policy(small, large, collector), tmp_path) as gateway:
        response = await gateway.chat(SAID, headers={"traceparent": PARENT, "tracestate": "a=1"})
        root, first, second = await _collected(collector, 3)

    assert root.trace_id == first.trace_id == bytes.fromhex(PARENT[3:35])
    assert root.parent_span_id == bytes.fromhex(PARENT[36:52])
    assert first.parent_span_id == second.parent_span_id == root.span_id
    told = _attributes(root)
    assert told["frugal.request_id"] == response.headers["x-request-id"]
    assert told["frugal.path"] == response.headers["x-frugal-path"]
    assert told["frugal.cost_usd"] == float(response.headers["x-frugal-cost-usd"])
    assert told["gen_ai.operation.name"] == "chat"
    assert told["http.response.status_code"] == 200
    calls = [_attributes(first), _attributes(second)]
    assert [c["frugal.outcome"] for c in calls] == ["rejected", "accepted"]
    assert calls[0]["frugal.confidence"] < 0.8
    assert calls[1]["gen_ai.usage.input_tokens"] == 10
    assert calls[1]["gen_ai.response.finish_reasons"] == ["stop"]
    assert root.start_time_unix_nano <= first.start_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano
    assert second.end_time_unix_nano <= root.end_time_unix_nano
    for server, span in ((small, first), (large, second)):
        (received,) = server.requests
        assert received.headers["traceparent"] == (
            f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
        )
        assert received.headers["tracestate"] == "a=1"


async def test_what_was_said_is_left_out_unless_it_is_asked_for(tmp_path, collector, small, large):
    async with serving(_policy(small, large, collector), tmp_path) as gateway:
        await gateway.chat(SAID)
        spans = await _collected(collector, 3)

    assert not any("secret" in received.body.decode("latin-1") for received in collector.requests)
    assert not any("messages" in key for span in spans for key in _attributes(span))


async def test_what_was_said_goes_without_credentials(tmp_path, collector, small, large):
    async with serving(_policy(small, large, collector, texts=True), tmp_path) as gateway:
        await gateway.chat(SAID)
        root, *_ = await _collected(collector, 3)

    told = _attributes(root)
    (message,) = json.loads(told["gen_ai.input.messages"])
    assert message["parts"][0]["content"] == "my key is [secret], tell me a secret"
    assert json.loads(told["gen_ai.output.messages"])[0]["parts"][0]["content"] == "a good answer"


async def test_a_client_that_does_not_sample_is_followed_and_its_context_passed_on(
    tmp_path, collector, small, large
):
    async with serving(_policy(small, large, collector), tmp_path) as gateway:
        await gateway.chat("one", headers={"traceparent": NOT_SAMPLED})
        await gateway.chat("two", headers={"traceparent": PARENT})
        await _collected(collector, 3)

    assert {span.parent_span_id.hex() for r in collector.requests for span in _spans(r)} >= {
        PARENT[36:52]
    }
    assert sum(len(_spans(r)) for r in collector.requests) == 3
    assert small.requests[0].headers["traceparent"] == NOT_SAMPLED


async def test_a_hit_and_a_failure_are_traced(tmp_path, collector):
    fine = Says("fine", logprobs=(-0.01,))

    def one_only(received):
        is_one = received.json["messages"][0]["content"] == "one"
        return fine(received) if is_one else [answer({}, status="400 No")]

    async with (
        ScriptedUpstream(one_only) as small,
        ScriptedUpstream([[answer({}, status="400 No")]]) as large,
        serving(_policy(small, large, collector), tmp_path) as gateway,
    ):
        await gateway.chat("one")
        await gateway.chat("one")
        failed = await gateway.chat("two")
        spans = await _collected(collector, 5)

    assert failed.status_code == 400
    hits = [_attributes(s) for s in spans if _attributes(s).get("frugal.cache") == "exact"]
    assert len(hits) == 1
    errors = [s for s in spans if s.status.code == 2]
    assert errors
    assert all("error.type" in _attributes(s) for s in errors)


async def test_a_collector_that_is_away_costs_traces_and_nothing_else(tmp_path, small, large):
    whole = json.loads(two_tiers(small.url, large.url))
    whole["telemetry"] = {"traces": {"endpoint": "http://127.0.0.1:9", "sample": 1}}
    async with serving(json.dumps(whole), tmp_path) as gateway:
        responses = [await gateway.chat(f"q{i}") for i in range(3)]

    assert {r.status_code for r in responses} == {200}


async def test_a_collector_that_hangs_delays_no_request(tmp_path, small, large):
    hold = Hold()
    async with ScriptedUpstream([[hold]]) as hung:
        whole = json.loads(two_tiers(small.url, large.url))
        endpoint = hung.url.removesuffix("/v1")
        whole["telemetry"] = {"traces": {"endpoint": endpoint, "sample": 1}}
        async with serving(json.dumps(whole), tmp_path) as gateway:
            await gateway.chat("first")
            await asyncio.wait_for(hold.reached.wait(), 30)
            while_it_hangs = [(await gateway.chat(f"q{i}")).status_code for i in range(20)]
        assert hung.connections >= 1

    assert while_it_hangs == [200] * 20


def test_what_nobody_takes_is_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(traces, "MOST_WAITING", 2)
    tracing = Tracing(Traces(endpoint="http://127.0.0.1:1", sample=1), exporter=None)
    for _ in range(3):
        tracing.note(None, None, None, ())

    assert tracing.dropped == 1


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"00-0-0-01",
        b"ff" + PARENT[2:].encode(),
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
        PARENT.upper().encode(),
        PARENT.encode() + b"-more",
        b"\xff" * 55,
    ],
)
def test_a_context_that_is_none_begins_a_trace_of_our_own(written):
    tracing = Tracing(Traces(endpoint="http://c", sample=1), exporter=None, draw=lambda: 0.5)

    context = tracing.begin({b"traceparent": written})

    assert context.is_sampled
    assert context.parent_id == 0


def test_a_share_of_requests_is_traced():
    rules = Traces(endpoint="http://c", sample=0.25)
    draws = iter([0.1, 0.3, 0.24, 0.9])
    tracing = Tracing(rules, exporter=None, draw=lambda: next(draws))

    assert [tracing.begin({}) is not None for _ in range(4)] == [True, False, True, False]


def test_names_are_those_of_the_conventions():
    known = {v for k, v in vars(conventions).items() if k.startswith("GEN_AI")}
    source = (traces.spans_of.__code__.co_filename, "rb")
    with open(*source) as file:
        used = {
            word.decode()
            for word in file.read().replace(b'"', b" ").split()
            if word.startswith(b"gen_ai.")
        }

    assert used <= known
