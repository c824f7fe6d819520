"""Tool calls of a local tier: a sound one is the answer, a malformed one escalates."""

from __future__ import annotations

import time

import pytest

from tests.support.gateway_app import asking, frugal_serve
from tests.support.parrot import write_parrot
from tests.support.policies import DEAR, policy, remote
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

pytest.importorskip("torch", reason="needs the extra 'local'")

SOUND = ("<tool_call>", '{"name": "now", "arguments": {}}', "</tool_call>")
BROKEN = ("<tool_call>", '{"name": "now", "arguments": {', "</tool_call>")
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}]
_READY_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    with upstream_in_thread(Says("clockwork", tokens=(11, 4))) as upstream:
        models = {"large": remote(upstream.url, price=DEAR)}
        routes = {}
        for name, pieces in (("sound", SOUND), ("broken", BROKEN)):
            models[name] = {
                "provider": "local",
                "checkpoint": str(write_parrot(folder / name, pieces)),
                "price": {"machine_hour_usd": 0.4},
                "tools": True,
            }
            confidence = {"kind": "logprob", "threshold": 0.0}
            routes[f"to-{name}"] = {"cascade": {"tiers": [name, "large"], "confidence": confidence}}
        with frugal_serve(policy(models, routes), folder) as running:
            yield running


def ask(served, route, **members):
    """Ask until the engine has loaded: before that its tier falls back, and does not escalate."""
    deadline = time.monotonic() + _READY_WITHIN_S
    body = asking("What time is it?", model=route, tools=TOOLS, temperature=0) | members
    with served.client() as client:
        while True:
            answer = client.post("/v1/chat/completions", json=body)
            if ":unavailable:" not in answer.headers["x-frugal-path"]:
                return answer
            assert time.monotonic() < deadline, served.said()
            time.sleep(0.2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_sound_call_of_the_local_model_is_the_answer(served, stream):
    answer = ask(served, "to-sound", stream=stream)

    assert answer.headers["x-frugal-model"] == "sound"
    assert '"tool_calls"' in answer.text
    assert "now" in answer.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_malformed_call_of_the_local_model_escalates(served, stream):
    answer = ask(served, "to-broken", stream=stream)

    assert answer.headers["x-frugal-model"] == "large"
    assert answer.headers["x-frugal-path"].startswith("broken:")
    assert "escalated" in answer.headers["x-frugal-path"]
    assert "clockwork" in answer.text
    assert "<tool_call>" not in answer.text
