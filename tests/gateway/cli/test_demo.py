"""`frugal up` and `frugal demo`: the shipped models, end to end, with figures of the run itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time

import httpx
import pytest

from tests.support.gateway_app import ROOT, Books, frugal
from tests.support.processes import below

pytest.importorskip("torch", reason="needs the extra 'local'")
_READY_WITHIN_S = 120.0
_ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """Run `frugal up`; yield its address, its process and its folder."""
    folder = tmp_path_factory.mktemp("up")
    port, admin = _free_port(), _free_port()
    with (folder / "up.log").open("wb") as sink:
        process = subprocess.Popen(
            frugal("up", "--port", str(port), "--admin-port", str(admin)),
            cwd=folder,
            env=_ENV,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _until_up(url, process, folder)
        yield url, process, folder
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(40)


def _until_up(url, process, folder):
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        assert process.poll() is None, (folder / "up.log").read_text()
        assert time.monotonic() < deadline, (folder / "up.log").read_text()
        try:
            if httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def _demo(url, folder, *arguments):
    return subprocess.run(
        frugal("demo", "--url", url, *arguments),
        cwd=folder,
        env=_ENV | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_comparison_is_measured_in_the_run_and_agrees_with_the_ledger(up):
    url, _, folder = up
    books = Books(folder / "frugal-demo.db")
    before = len(books.entries())
    done = _demo(url, folder, "--questions", "20", "--json")

    assert done.returncode == 0, done.stderr
    rows = {row["way"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"small", "large", "cascade", "with cache"}
    assert all(row["requests"] == 24 for row in rows.values())
    assert all(0 <= row["accuracy"] <= 1 for row in rows.values())
    assert all(row["p50_ms"] <= row["p95_ms"] for row in rows.values())
    assert rows["with cache"]["cache_hits"] == 4
    assert rows["cascade"]["cache_hits"] == 0
    entries = books.entries()[before:][-4 * 24 :]  # before these it waits for the models
    assert {entry["state"] for entry in entries} == {"settled"}
    paid = sum(row["cost_usd_per_1k"] * row["requests"] / 1000 for row in rows.values())
    assert sum(entry["cost_nano_usd"] for entry in entries) == pytest.approx(paid * 1e9, abs=100)
    assert rows["large"]["tokens"] == sum(
        sum(entry["usage"].values()) for entry in entries if entry["route"] == "large"
    )


def test_the_table_shows_every_way(up):
    url, _, folder = up
    done = _demo(url, folder, "--questions", "10", "--concurrency", "2")

    assert done.returncode == 0, done.stderr
    for way in ("small", "large", "cascade", "with cache"):
        assert way in done.stdout


def test_the_greeting_names_what_to_try(up):
    url, _, folder = up
    said = (folder / "up.log").read_text()

    assert f"{url}/v1/chat/completions" in said
    assert f"demo --url {url}" in said


def test_ctrl_c_ends_all_that_it_started(up):
    _, process, _ = up
    engines = below(process.pid, "local_engine.server")
    process.send_signal(signal.SIGINT)

    assert process.wait(40) == 0
    assert len(engines) == 2
    assert not [pid for pid in engines if os.path.exists(f"/proc/{pid}")]


def test_without_a_gateway_the_demo_says_how_to_start_one(tmp_path):
    done = _demo(f"http://127.0.0.1:{_free_port()}", tmp_path, "--questions", "10")

    assert done.returncode == 1
    assert "frugal up" in done.stderr
