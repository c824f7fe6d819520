"""`frugal serve` as a process: how it starts, how it does not, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from tests.support.clients import say
from tests.support.gateway_app import ROOT, asking, events_of, frugal, frugal_serve, text_of
from tests.support.policies import one_model, policy, remote
from tests.support.processes import children
from tests.support.redis_server import RedisServer
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold
from tests.support.threaded import upstream_in_thread

ANSWER = Says("one two three four", tokens=(10, 4))


def _run(folder, text, *arguments):
    """Run `frugal serve` to its end."""
    (folder / "policy.yaml").write_text(text)
    return subprocess.run(
        frugal("serve", "policy.yaml", "--port", "0", "--admin-port", "0", *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


# Starting


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _run(tmp_path, one_model("http://127.0.0.1:1/v1"), "--port", port)

    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "choose another port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_policy_is_refused_with_its_line(tmp_path):
    text = one_model("http://127.0.0.1:1/v1").replace('"model": "large"', '"model": "lrage"')
    done = _run(tmp_path, text)

    line = next(n for n, row in enumerate(text.splitlines(), 1) if "lrage" in row)
    assert done.returncode == 1
    assert f"policy.yaml:{line}:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_policy_that_is_not_there_is_one_clear_line(tmp_path):
    done = subprocess.run(
        frugal("serve", "nowhere.yaml"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert done.returncode == 1
    assert "nowhere.yaml" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_price_is_refused_by_name(tmp_path):
    models = {"large": {"provider": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    done = _run(tmp_path, policy(models))

    assert done.returncode == 1
    assert "large" in done.stderr
    assert "unknown_is_free" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_ledger_that_cannot_be_opened_is_one_clear_line(tmp_path):
    ledger = f"sqlite:///{tmp_path}/no/such/folder/ledger.db"
    done = _run(tmp_path, one_model("http://127.0.0.1:1/v1"), "--ledger", ledger)

    assert done.returncode == 1
    assert "ledger" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_authority_that_is_none_is_one_clear_line(tmp_path, workers):
    (tmp_path / "ca.pem").write_text("no certificate")
    models = {"large": remote("https://127.0.0.1:1/v1", tls={"ca_file": "ca.pem"})}
    done = _run(tmp_path, policy(models), "--workers", workers, "--port", "0", "--admin-port", "0")

    assert done.returncode == 1
    assert "models.large: tls.ca_file: expected certificates in PEM" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_cluster_is_one_clear_line(tmp_path):
    with RedisServer(tmp_path, "--cluster-enabled", "yes") as server:
        storage = {"redis": server.url}
        text = policy({"large": remote("http://127.0.0.1:1/v1")}, storage=storage)
        done = _run(tmp_path, text)

    assert done.returncode == 1
    assert "storage.redis: expected one Redis server" in done.stderr
    assert "Traceback" not in done.stderr


def test_outcomes_that_cannot_be_read_are_one_clear_line(tmp_path):
    (tmp_path / "log.jsonl").write_text("[1]\n")
    models = {"old": {"provider": "recorded", "outcomes": "log.jsonl", "price": "unknown_is_free"}}
    done = _run(tmp_path, policy(models), "--port", "0", "--admin-port", "0")

    assert done.returncode == 1
    assert "log.jsonl, row 1: expected a JSON object" in done.stderr
    assert "Traceback" not in done.stderr


# Ending


class Slow:
    """A model that stops in the middle of each stream until it is released."""

    def __init__(self) -> None:
        self.hold = Hold()

    def __call__(self, received):
        return [*ANSWER.until(2), self.hold, *ANSWER.since(2)]


def _release(upstream, model):
    """Let the upstream, in its thread, go on."""
    upstream.loop.call_soon_threadsafe(model.hold.release)


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGINT, "2")]
)
def test_a_signal_lets_a_stream_under_way_finish(tmp_path, workers, number):
    model = Slow()
    with (
        upstream_in_thread(model) as upstream,
        frugal_serve(one_model(upstream.url), tmp_path, "--workers", workers) as served,
        served.client() as client,
        client.stream("POST", "/v1/chat/completions", json=asking(stream=True)) as response,
    ):
        lines = response.iter_lines()
        said = [next(lines)]
        served.process.send_signal(number)
        _until_closed(served.port)
        _release(upstream, model)
        said += lines
        status = served.process.wait(30)

    events = events_of("\n".join(said))
    assert text_of(events) == ANSWER.text
    assert events[-1] == "[DONE]"
    assert status == 0
    assert served.books.entry()["state"] == "settled"


def _until_closed(port):
    """Wait until nobody listens any more: the signal has been understood."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionError:
            return


def test_a_second_signal_does_not_wait(tmp_path):
    with (
        upstream_in_thread(Slow()) as upstream,
        frugal_serve(one_model(upstream.url), tmp_path) as served,
        served.client() as client,
        client.stream("POST", "/v1/chat/completions", json=asking(stream=True)) as response,
    ):
        next(response.iter_lines())
        served.process.send_signal(signal.SIGTERM)
        _until_closed(served.port)
        served.process.send_signal(signal.SIGTERM)

        assert served.process.wait(20) == 0
    assert served.books.entry()["state"] == "abandoned"


def test_the_drain_has_an_end(tmp_path):
    with upstream_in_thread(Slow()) as upstream:
        text = one_model(upstream.url).replace(
            '"version": 1', '"version": 1, "server": {"drain": "1s"}'
        )
        with (
            frugal_serve(text, tmp_path) as served,
            served.client() as client,
            client.stream("POST", "/v1/chat/completions", json=asking(stream=True)) as response,
        ):
            next(response.iter_lines())

            assert served.stop() == 0
    assert served.books.entry()["state"] == "abandoned"


# Several workers


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    with (
        upstream_in_thread(ANSWER) as upstream,
        frugal_serve(one_model(upstream.url), tmp_path, "--workers", "2") as served,
    ):
        first = children(served.process.pid)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        with served.client() as client:
            answer = client.post("/v1/chat/completions", json=asking())
        second = children(served.process.pid)
        status = served.stop()

    assert answer.json() == ANSWER.body()
    assert len(first) == 2
    assert not set(first) & set(second)
    assert status == 0
    assert "starting another" in served.said()


def test_workers_share_the_port_and_the_ledger(tmp_path):
    with (
        upstream_in_thread(ANSWER) as upstream,
        frugal_serve(policy({"large": remote(upstream.url)}), tmp_path, "--workers", "2") as served,
    ):
        # Who takes a connection is the kernel's choice: ask until both have been chosen.
        for turn in range(1, 21):
            _ask_together(served, range(20 * (turn - 1), 20 * turn))
            rows = served.books.entries()
            who = {row["request_id"][-8:] for row in rows}
            if len(who) == 2:
                break

    assert len(rows) == 20 * turn
    assert len(who) == 2, "both workers have answered"
    assert "per worker" in served.said()


def test_whichever_worker_is_asked_tells_of_all_refusals(tmp_path):
    locked = policy({"large": remote("http://127.0.0.1:1/v1")}, access={"anonymous": "never"})
    with frugal_serve(locked, tmp_path, "--workers", "2") as served:
        _ask_together(served, range(40))
        deadline = time.monotonic() + 20
        while (told := _refused(served)) < 40 and time.monotonic() < deadline:
            time.sleep(0.1)

    assert told == 40


def _refused(served):
    with httpx.Client(trust_env=False) as client:
        text = client.get(f"{served.admin_url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("frugal_refusals_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _ask_together(served, numbers):
    asked = [threading.Thread(target=_ask_once, args=(served, number)) for number in numbers]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join(30)


def _ask_once(served, number):
    with served.client() as client:
        client.post("/v1/chat/completions", json=asking(f"q{number}", model="large"))


def test_the_admin_port_shows_the_policy_without_its_secrets(tmp_path):
    key = "sk-planted-0123456789abcdef"
    model = remote("http://127.0.0.1:1/v1", api_key="${PLANTED}")
    access = {"anonymous": "loopback", "keys": [{"name": "ci", "key": key}]}
    env = {"PLANTED": "sk-planted-upstream-0123456789"}
    with frugal_serve(policy({"large": model}, access=access), tmp_path, env=env) as served:
        port = int(served.admin_url.rpartition(":")[2])
        shown = say(port, b"GET /admin/policy HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", method="GET")
        hostile = say(
            port, b"GET /admin/policy HTTP/1.1\r\nhost: evil.example\r\n\r\n", method="GET"
        )

    assert shown.status == 200
    assert b"http://127.0.0.1:1/v1" in shown.body
    assert b"planted" not in shown.body
    assert hostile.status == 400
