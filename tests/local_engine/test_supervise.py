"""The engine's child process: real processes, started, killed, restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from local_engine.errors import EngineUnavailable
from local_engine.supervise import (
    Backoff,
    EngineCommand,
    EngineProcess,
    child_environment,
    is_healthy,
)
from tests.local_engine.support import eventually, is_alive

Checkpoint = Callable[[str], Path]
QUICK = Backoff(first_s=0.01, most_s=0.01)
BODY = {"messages": [{"role": "user", "content": "the fox"}], "max_tokens": 3}


@pytest.fixture
def command(checkpoint: Checkpoint) -> EngineCommand:
    return EngineCommand(
        str(checkpoint("llama")), "tiny", quantization="int8", kv="int8", threads=1
    )


async def complete(path: Path) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        return await client.post("/v1/chat/completions", json=BODY, timeout=30)


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def test_child_answers_dies_and_comes_back(command: EngineCommand) -> None:
    async with EngineProcess(command, backoff=QUICK) as engine:
        with pytest.raises(EngineUnavailable, match="tiny is starting"):
            engine.socket()
        path = await engine.ready(60.0)
        first = engine.pid
        assert (await complete(path)).status_code == 200
        assert first is not None
        nice = os.getpriority(os.PRIO_PROCESS, first)
        goes_first = oom_score(first)
        assert os.getsid(first) == first

        os.kill(first, signal.SIGKILL)
        await eventually(lambda: engine.state != "up")
        with pytest.raises(EngineUnavailable):
            engine.socket()
        await eventually(lambda: engine.state == "up", 60.0)
        second = engine.pid
        assert second is not None
        assert (await complete(engine.socket())).status_code == 200

    assert nice == os.nice(0) + 5
    assert goes_first == 500  # where memory runs out, it goes before its parent
    assert (engine.restarts, second != first) == (1, True)
    assert not is_alive(second)
    assert not path.parent.exists()
    with pytest.raises(EngineUnavailable, match="closed"):
        engine.socket()


async def test_child_that_cannot_load_says_why(command: EngineCommand, tmp_path: Path) -> None:
    broken = replace(command, checkpoint=str(tmp_path))
    slow = Backoff(first_s=60.0)
    async with EngineProcess(broken, backoff=slow) as engine:
        with pytest.raises(EngineUnavailable, match=r"config\.json: cannot be read"):
            await engine.ready(60.0)

        assert engine.state == "down"


async def test_child_ends_when_its_parent_is_killed(command: EngineCommand, tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import asyncio, sys\n"
        "from local_engine.supervise import EngineCommand, EngineProcess\n"
        "async def main():\n"
        "    async with EngineProcess(EngineCommand(sys.argv[1], 'tiny', threads=1)) as engine:\n"
        "        await engine.ready()\n"
        "        print(engine.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(parent), command.checkpoint),
        stdout=asyncio.subprocess.PIPE,
        env=child_environment(os.environ, 1),
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    process.kill()
    await process.wait()

    await eventually(lambda: not is_alive(child))


async def test_leaving_while_the_child_still_loads_ends_it(command: EngineCommand) -> None:
    async with EngineProcess(command) as engine:
        await eventually(lambda: engine.pid is not None)
        pid = engine.pid
        assert pid is not None

    assert not is_alive(pid)


async def test_nobody_listening_is_not_healthy(tmp_path: Path) -> None:
    assert not await is_healthy(tmp_path / "none.sock")


def test_child_gets_no_credentials() -> None:
    own = {"PATH": "/bin", "OPENAI_API_KEY": "x", "REDIS_URL": "x", "HF_HOME": "/hf", "LC_ALL": "C"}

    child = child_environment(own, 3)

    assert set(child) & set(own) == {"PATH", "HF_HOME", "LC_ALL"}
    assert child["OMP_NUM_THREADS"] == "3"


def test_what_the_gateway_imports_needs_no_torch() -> None:
    code = "import sys, local_engine; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_restarts_wait_longer_each_time_up_to_a_bound() -> None:
    backoff = Backoff(first_s=0.5, most_s=4.0)

    assert [backoff.delay(n) for n in range(5)] == [0.5, 1.0, 2.0, 4.0, 4.0]
    assert backoff.delay(10**6) == 4.0


def test_optional_settings_reach_the_command_line() -> None:
    command = EngineCommand("demo/tiny", "tiny", threads=2, max_context=64)

    arguments = command.arguments(Path("/run/e.sock"))

    assert arguments[arguments.index("--threads") + 1] == "2"
    assert arguments[arguments.index("--max-context") + 1] == "64"
    assert "--max-context" not in EngineCommand("demo/tiny", "tiny").arguments(Path("/run/e"))
