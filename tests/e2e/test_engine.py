"""A local tier: one engine process for all workers, whose crash is a fallback and no outage."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.gateway_app import asking, frugal_serve
from tests.support.policies import DEAR, policy, remote
from tests.support.processes import below, children
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

ANSWER = Says("the large answer", tokens=(11, 4))
ENGINE = "local_engine.server"
SUM = asking("What is 7 plus 5?", max_tokens=24, temperature=0)
_READY_WITHIN_S = 60.0

pytest.importorskip("torch", reason="needs the extra 'local'")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    tiny = {
        "provider": "local",
        "checkpoint": "demo/tiny",
        "quantization": "int8",
        "price": {"machine_hour_usd": 0.4},
    }
    with upstream_in_thread(ANSWER) as upstream:
        cascade = {
            "tiers": ["tiny", "large"],
            "confidence": {"kind": "logprob", "threshold": 0.0},
        }
        models = {"tiny": tiny, "large": remote(upstream.url, price=DEAR)}
        text = policy(models, {"auto": {"cascade": cascade}})
        folder = tmp_path_factory.mktemp("engine")
        with frugal_serve(text, folder, "--workers", "2") as running:
            _until_answered_by(running, "tiny")
            yield running


def _ask(served, **members):
    with served.client() as client:
        return client.post("/v1/chat/completions", json=SUM | members)


def _until_answered_by(served, model):
    deadline = time.monotonic() + _READY_WITHIN_S
    while (answer := _ask(served)).headers.get("x-frugal-model") != model:
        assert time.monotonic() < deadline, served.said()
        time.sleep(0.2)
    return answer


def test_one_engine_serves_all_workers(served):
    assert len(children(served.process.pid)) == 3
    assert len(below(served.process.pid, ENGINE)) == 1


def test_the_engines_own_members_are_not_shown_and_its_time_is_priced(served):
    answer = _ask(served)

    assert answer.headers["x-frugal-path"].startswith("tiny:")
    assert answer.headers["x-frugal-path"].endswith(":accepted")
    assert "frugal" not in answer.json()
    assert answer.json()["usage"]["completion_tokens"] > 0
    (line,) = served.books.lines(answer.headers["x-request-id"])
    assert line["compute_us"] > 0
    # 0.40 dollars an hour are a ninth of a nano-dollar for each of its microseconds, times 1,000.
    assert line["cost_nano_usd"] == round(line["compute_us"] * 0.4 / 3_600_000_000 * 1e9)


def test_a_killed_engine_leaves_the_cascade_to_the_next_tier_and_comes_back(served):
    (engine,) = below(served.process.pid, ENGINE)
    os.kill(engine, signal.SIGKILL)
    meanwhile = _until_answered_by(served, "large")
    again = _until_answered_by(served, "tiny")

    assert meanwhile.json() == ANSWER.body()
    assert meanwhile.headers["x-frugal-path"] == "tiny:unavailable:failed,large:served"
    assert again.headers["x-frugal-path"].endswith(":accepted")
    assert below(served.process.pid, ENGINE) != [engine]


def test_asked_directly_a_dead_engine_is_a_503(served):
    (engine,) = below(served.process.pid, ENGINE)
    os.kill(engine, signal.SIGKILL)
    deadline = time.monotonic() + _READY_WITHIN_S
    while (answer := _ask(served, model="tiny")).status_code == 200:
        assert time.monotonic() < deadline

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "upstream_unavailable"


def test_nothing_is_left_running_when_it_stops(served):
    pids = [*children(served.process.pid), *below(served.process.pid, ENGINE)]

    assert served.stop() == 0
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
