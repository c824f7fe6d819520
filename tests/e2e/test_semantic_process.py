"""Several workers and one semantic cache: shared by all, and missed by none when it dies."""

from __future__ import annotations

import os
import signal
import time

from tests.support.gateway_app import asking, frugal_serve
from tests.support.policies import one_model
from tests.support.processes import below
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

ANSWER = Says("Open settings and press reset", tokens=(10, 5))
FIRST = "How do I reset my password?"
AGAIN = "how do I reset my password please"
CACHE = {"semantic": {"max_error": 0.5, "audit": 0}}
WITHIN_S = 40.0


def ask(served, question):
    """Ask over a connection of its own, so that any worker may take it."""
    with served.client() as client:
        answer = client.post("/v1/chat/completions", json=asking(question))
    assert answer.status_code == 200, answer.text
    return answer


def until_hit(served):
    """Ask until the answer comes from the cache; return who gave it."""
    deadline = time.monotonic() + WITHIN_S
    while (answer := ask(served, AGAIN)).headers["x-cache"] != "semantic":
        assert time.monotonic() < deadline, served.said()
    return answer


def test_workers_share_one_process_and_outlive_it(tmp_path):
    with (
        upstream_in_thread(ANSWER) as upstream,
        frugal_serve(one_model(upstream.url, cache=CACHE), tmp_path, "--workers", "2") as served,
    ):
        ask(served, FIRST)
        until_hit(served)
        answered_by = {until_hit(served).headers["x-request-id"][-8:] for _ in range(30)}
        (first,) = below(served.process.pid, "cache.semantic.process")
        os.kill(first, signal.SIGKILL)
        during = [ask(served, AGAIN) for _ in range(5)]
        until_hit(served)
        (second,) = below(served.process.pid, "cache.semantic.process")
        status = served.stop()

    assert len(answered_by) == 2, "both workers have found it"
    assert all(answer.json()["choices"] for answer in during)
    assert first != second
    assert status == 0
    assert {row["state"] for row in served.books.entries()} == {"settled"}
    assert "the semantic cache's process ended with status -9" in served.said()
