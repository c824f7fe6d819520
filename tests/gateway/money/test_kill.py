"""What the ledger acknowledged is there after `kill -9`, at any moment."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

WRITER = """
import asyncio, os, sys
from gateway.money.ledger import ledger_at
from tests.support.money import attempt, entry

async def client(ledger, numbers, prefix):
    for number in numbers:
        name = f"{prefix}-{number:06}"
        await ledger.write(entry(name), [attempt(name, 0), attempt(name, 1)])
        os.write(1, f"{name}\\n".encode())

async def main(url, prefix):
    async with ledger_at(url) as ledger:
        numbers = iter(range(10**6))
        await asyncio.gather(*(client(ledger, numbers, prefix) for _ in range(16)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def _acknowledged(url, prefix, lines):
    """Run a writer, kill it once it has acknowledged so many, and return all that it did."""
    command = [sys.executable, "-c", WRITER, url, prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        seen = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        seen += writer.stdout.readlines()
    return {line.strip() for line in seen if line.endswith("\n")}


@pytest.mark.parametrize("option", ["", "?synchronous=full"])
def test_no_acknowledged_entry_is_lost_to_kill_9(tmp_path, option):
    path = tmp_path / "ledger.db"
    chance = random.Random(17)
    acknowledged = set()
    for number in range(4):
        lines = chance.randrange(1, 800)
        acknowledged |= _acknowledged(f"sqlite:///{path}{option}", f"round{number}", lines)

    with closing(sqlite3.connect(path)) as connection:
        kept = dict(connection.execute("SELECT request_id, cost_nano_usd FROM entry"))
        attempts = dict(
            connection.execute("SELECT request_id, count(*) FROM attempt GROUP BY request_id")
        )
        whole = connection.execute("PRAGMA integrity_check").fetchone()

    assert len(acknowledged) >= 4
    assert acknowledged <= kept.keys()
    assert attempts == dict.fromkeys(kept, 2)
    assert whole == ("ok",)
