"""The gateway beside nginx and LiteLLM: CPU per request, added latency, streams.

    python -m bench.gateway --kit ../perf-kit --peers nginx,litellm --rounds 3

The kit holds a mock upstream, a load generator and the scripts that start the
peers; this module writes the gateway's policy (one directly named model, key
check, ledger and exact cache on, one worker) and hands all over. Everything
runs on loopback.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.processes import KEY, built_kit

_POLICY = """
version: 1
access:
  keys:
    - {{name: bench, tenant: bench, key: {key}}}
models:
  gpt-4o-mini:
    provider: openai
    base_url: http://127.0.0.1:{mock_port}/v1
    api_key: sk-upstream
    price: {{input_per_mtok_usd: 0.15, output_per_mtok_usd: 0.60}}
routes:
  gpt-4o-mini:
    model: gpt-4o-mini
    cache: {{exact: {{ttl: 24h}}}}
storage:
  ledger: sqlite:///{ledger}
"""


def write_policy(folder: Path, *, mock_port: int) -> Path:
    """Write the bench's policy and return its path; the ledger stands beside it."""
    path = folder / "policy.yaml"
    ledger = folder / "ledger.db"
    path.write_text(_POLICY.format(key=KEY, mock_port=mock_port, ledger=ledger))
    return path


def main() -> int:
    """Run the kit on the gateway and its peers. Returns the kit's exit status."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="frugal-bench-") as name,
        built_kit(arguments.kit) as kit,
    ):
        folder = Path(name)
        mock_port = int(os.environ.get("MOCK_PORT", "9001"))
        policy = write_policy(folder, mock_port=mock_port)
        frugal = Path(sys.executable).with_name("frugal")
        ports = f"--port {arguments.port} --admin-port {arguments.port + 1}"
        command = [
            sys.executable, str(kit / "bench" / "run.py"),
            "--peers", arguments.peers, "--rounds", str(arguments.rounds),
            "--scale", str(arguments.scale), "--cases", arguments.cases,
            "--name", "frugal", "--port", str(arguments.port),
            "--header", f"Authorization: Bearer {KEY}",
            "--cmd", f"{frugal} serve {policy} {ports}",
            "--out", str(folder / "results.jsonl"),
        ]  # fmt: skip
        return subprocess.run(command, check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, required=True, help="folder of the perf-kit")
    parser.add_argument("--peers", default="nginx", help="of nginx, litellm, portkey, none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies every case's length")
    parser.add_argument("--cases", default="c1,c16,c64,open,sgap,s16,hit16")
    parser.add_argument("--port", type=int, default=8200)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
