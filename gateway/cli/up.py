"""`frugal up`: the demo policy with its larger model on an engine server of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import policies
from gateway.cli.serve import run_serve

_READY_WITHIN_S = 120.0
_WHAT_TO_TRY = """
Two small models made by this project are up: 'tiny' in an engine beside the gateway, and
'large' on an OpenAI-compatible server of its own at {upstream}.
They are demonstration models: they know sums, dates, sorting and the like, in the wordings
they were taught, and nothing else.

Try, in another terminal:

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "What is 17 + 25?"}}]}}' -i

  .venv/bin/frugal demo --url {url}      # a few hundred prompts: small, large, cascade
  .venv/bin/frugal costs --ledger {ledger}

What it cost and saved: http://127.0.0.1:{admin_port}/dashboard
Any OpenAI client works: OpenAI(base_url="{url}/v1", api_key="any").
Stop with Ctrl-C.
"""


def run_up(overrides: Mapping[str, Any]) -> None:
    """Serve policies/demo.yaml, with `demo/small` as the remote model on a free port."""
    ledger = "sqlite:///frugal-demo.db"
    with _remote_model() as upstream:
        os.environ["FRUGAL_DEMO_UPSTREAM"] = f"{upstream}/v1"
        url = f"http://127.0.0.1:{overrides.get('port', 4000)}"
        greeting = _WHAT_TO_TRY.format(
            upstream=upstream, url=url, ledger=ledger, admin_port=overrides.get("admin_port", 4001)
        )
        demo = Path(policies.__file__).parent / "demo.yaml"
        run_serve(demo, overrides, ledger, greeting=greeting)


@contextmanager
def _remote_model() -> Iterator[str]:
    """Run the larger demo model as a server; yield its address once it answers."""
    port = _free_port()
    command = [sys.executable, "-m", "local_engine.server", "demo/small",
               "--model-name", "demo/small", "--port", str(port),
               "--threads", "1", "--niceness", "5", "--exit-with-stdin"]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the demo's larger model ended with status {process.returncode}")
        try:
            with opener.open(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"the demo's larger model was not ready within {_READY_WITHIN_S:.0f} s")
