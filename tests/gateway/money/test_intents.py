from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat

import pytest

from gateway.money.errors import LedgerError
from gateway.money.intents import IntentLog
from gateway.money.recovery import orphans
from tests.support.money import intent


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "intents"


def _files(folder):
    return sorted(folder.glob("*")) if folder.exists() else []


def _left(folder):
    with orphans(folder) as found:
        return [i for orphan in found for i in orphan.intents]


def test_an_intent_is_read_back_as_it_was_written(folder):
    log = IntentLog(folder)
    wanted = intent("a", tags=("x",), own_account="audit")
    log.note(wanted)
    log.close()

    assert _left(folder) == [wanted]


def test_files_are_for_their_owner_alone(folder):
    log = IntentLog(folder)
    log.note(intent("a"))
    (path,) = _files(folder)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    log.close()


def test_what_a_living_process_has_under_way_is_no_orphan(folder):
    log = IntentLog(folder)
    log.note(intent("a"))

    assert _left(folder) == []
    log.close()


def test_nothing_is_left_of_what_was_settled(folder):
    log = IntentLog(folder)
    for name in "ab":
        log.note(intent(name))
    log.settled("a")
    log.settled("b")
    log.close()

    assert log.open == 0
    assert _files(folder) == []


def test_files_stay_few_and_small_while_requests_come_and_go(folder):
    log = IntentLog(folder, segment_bytes=1_000)
    log.note(intent("long"))
    for number in range(200):
        log.note(intent(f"{number}"))
        if number:
            log.settled(f"{number - 1}")

    assert len(_files(folder)) <= 3
    assert all(path.stat().st_size < 2_000 for path in _files(folder))
    log.close()
    assert {i.request_id for i in _left(folder)} >= {"long", "199"}


def test_all_calls_of_a_request_are_in_one_file(folder):
    log = IntentLog(folder, segment_bytes=1)
    log.note(intent("a", seq=0))
    log.note(intent("b", seq=0))
    log.note(intent("a", seq=1))
    log.settled("b")

    log.close()
    assert [(i.request_id, i.seq) for i in _left(folder)] == [("a", 0), ("a", 1)]


def test_a_full_disk_is_an_error_and_leaves_no_half_line(folder):
    log = IntentLog(folder)
    log.note(intent("a"))
    size = _files(folder)[0].stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        with pytest.raises(LedgerError, match="check the disk"):
            log.note(intent("b"))
        with pytest.raises(LedgerError, match="check the disk"):
            log.note(intent("c"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    log.note(intent("d"))

    log.close()
    assert [i.request_id for i in _left(folder)] == ["a", "d"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "intents").write_text("a file")

    with pytest.raises(LedgerError, match="intents"):
        IntentLog(tmp_path / "intents").note(intent("a"))


async def test_where_the_disk_is_waited_for_the_call_waits(folder):
    synced = []
    log = IntentLog(folder, waits_for_disk=True, sync=lambda fd: synced.append(os.fstat(fd)))
    durable = log.note(intent("a"))

    assert isinstance(durable, asyncio.Future)
    await durable
    assert [found.st_ino for found in synced] == [_files(folder)[0].stat().st_ino]
    log.close()


async def test_a_disk_that_fails_to_sync_fails_the_call(folder):
    def sync(fd):
        raise OSError(5, "input/output error")

    log = IntentLog(folder, waits_for_disk=True, sync=sync)

    with pytest.raises(LedgerError, match="input/output error"):
        await log.note(intent("a"))
    log.close()
