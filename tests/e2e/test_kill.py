"""`kill -9` amid requests: after the next start each one is in the ledger, within bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.support.gateway_app import Books, asking, frugal_serve
from tests.support.policies import two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, answer
from tests.support.threaded import upstream_in_thread

UNSURE = Says("well", tokens=(10, 1), logprobs=[-4.0])
SURE = Says("one two three four", tokens=(10, 4))


def _ask(url, results, stream):
    try:
        body = asking(f"hello {stream}", stream=stream, max_tokens=50)
        results.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20))
    except httpx.TransportError as exc:
        results.append(exc)


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_kill_cut_off_is_recorded_within_its_bounds(tmp_path, workers):
    holds = [Hold(), Hold()]
    waiting = iter(holds)

    def large(received):
        if received.json["stream"]:
            return [*SURE.until(2), next(waiting), *SURE.since(2)]
        return [next(waiting), answer(SURE.body())]

    results = []
    with upstream_in_thread(UNSURE) as small, upstream_in_thread(large) as big:
        text = two_tiers(small.url, big.url)
        with frugal_serve(text, tmp_path, "--workers", str(workers)) as served:
            clients = [
                threading.Thread(target=_ask, args=(served.url, results, stream))
                for stream in (False, True)
            ]
            for client in clients:
                client.start()
            reached = big.until(lambda: len(big.requests) == 2)
            asyncio.run_coroutine_threadsafe(reached, big.loop).result(20)
            pids = [served.process.pid] if workers == 1 else map(int, _children(served.process.pid))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            for client in clients:
                client.join()
            if workers == 1:
                served.process.wait()
            else:
                asyncio.run(served.books.until(2))  # by those that take the place of the dead
        if workers == 1:
            with frugal_serve(text, tmp_path):
                pass
    books = Books(tmp_path / "ledger.db")
    rows = books.entries()

    assert all(isinstance(each, httpx.TransportError) for each in results)
    assert [(row["state"], row["estimated"]) for row in rows] == [("failed", True)] * 2
    for row in rows:
        draft, cut = books.lines(row["request_id"])
        assert (draft["outcome"], draft["estimated"]) == ("rejected", 0)
        assert (draft["input"], draft["output"]) == (10, 1)
        assert cut["outcome"] == "interrupted"
        # Ten dollars a million to read, twenty to write: as the policy says of the large model.
        assert cut["lower_nano_usd"] <= 10 * 10_000 + 4 * 20_000 <= cut["upper_nano_usd"]
        assert row["lower_nano_usd"] == draft["cost_nano_usd"]
