"""A disk without room: billable requests are refused, nothing is lost, and it passes."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.support.gateway_app import ROOT, serving
from tests.support.policies import one_model
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


@contextlib.contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond `size` bytes: writing more fails, as on a full disk.

    Python ignores the signal that comes with it.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def _until_ready(gateway):
    async with asyncio.timeout(20):
        while (await gateway.client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_ledger_that_cannot_grow_refuses_and_loses_nothing(tmp_path):
    async with (
        ScriptedUpstream(Says("x")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        first = await gateway.chat("first")
        log = gateway.books.path.with_name("ledger.db-wal")
        with files_of_at_most(log.stat().st_size):
            second = await gateway.chat("second")
            third = await gateway.chat("third", stream=True)
            unready = await gateway.client.get("/health/ready")
            asked = len(upstream.requests)
        await _until_ready(gateway)
        fourth = await gateway.chat("fourth")
        rows = gateway.books.entries()

    assert [r.status_code for r in (first, second, third, fourth)] == [200, 503, 503, 200]
    assert unready.status_code == 503
    assert asked == 2, "what cannot be recorded is not started"
    assert len(rows) == len(upstream.requests) == 3
    assert all(row["cost_nano_usd"] > 0 for row in rows)


async def test_where_nothing_can_be_written_no_model_is_called(tmp_path):
    async with (
        ScriptedUpstream(Says("x")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        with files_of_at_most(0):
            refused = [await gateway.chat(f"{n}", stream=n % 2 == 0) for n in range(4)]
        await _until_ready(gateway)
        served = await gateway.chat("then")

    assert [r.status_code for r in refused] == [503] * 4
    assert {r.json()["error"]["code"] for r in refused} == {"ledger_unavailable"}
    assert served.status_code == 200
    assert len(upstream.requests) == len(gateway.books.entries()) == 1


FILL = """
import asyncio, sys
from pathlib import Path
from gateway.money.ledger import LedgerError, ledger_at
from tests.support.money import attempt, entry, intent

async def main(folder):
    acknowledged = failed = 0
    async with ledger_at(f"sqlite:///{folder}/ledger.db") as ledger:
        for number in range(100_000):
            name = f"{number:08d}"
            try:
                ledger.intend(intent(name))
                await ledger.write(entry(name), [attempt(name)])
                acknowledged += 1
            except LedgerError:
                failed = number
                break
        assert not ledger.is_healthy or failed
        Path(folder, "ballast").unlink()
        while not await ledger.probe():
            await asyncio.sleep(0.01)
        await ledger.write(entry("then"), [attempt("then")])
    print(acknowledged, failed)

asyncio.run(main(sys.argv[1]))
"""


def test_a_tmpfs_that_is_full_loses_nothing_that_was_acknowledged(tmp_path):
    script = (
        f"mount -t tmpfs -o size=1m none {tmp_path} && "
        f"head -c 300000 /dev/zero > {tmp_path}/ballast && "
        f'{sys.executable} -c "$FILL" {tmp_path} && cp -r {tmp_path}/ledger.db* "$OUT"'
    )
    out = tmp_path.with_name(f"{tmp_path.name}-out")
    out.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1), for a mount of its own")
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        env={"FILL": FILL, "OUT": str(out), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "permitted" in ran.stderr or "permission" in ran.stderr.lower():
        pytest.skip("this system lets nobody mount in a namespace of their own")
    assert ran.returncode == 0, ran.stderr
    acknowledged, failed = map(int, ran.stdout.split())
    with contextlib.closing(sqlite3.connect(out / "ledger.db")) as connection:
        (kept,) = connection.execute("SELECT count(*) FROM entry").fetchone()

    assert 0 < acknowledged == failed
    assert kept >= acknowledged + 1
    assert list((out / "ledger.db-intents").iterdir()) == []
