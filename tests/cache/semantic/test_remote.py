"""Workers and the process that embeds and remembers for them, over a real socket."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from cache.fingerprint import fingerprint
from cache.scope import Scope
from cache.semantic.answers import Place
from cache.semantic.embedder import EmbedderError
from cache.semantic.found import Terms
from cache.semantic.host import LocalHost
from cache.semantic.process import serve
from cache.semantic.remote import RemoteHost
from cache.semantic.scope import Asked
from cache.types import CachedReply, StoreFailed
from tests.support.semantic import Lettered

TERMS = Terms(max_error=0.5, ttl=1e12)
QUESTION = "how do I reset my password"
REPLY = CachedReply(
    (b"press", b"reset"), True, "m", {"input": 3, "cached": 0.5}, 1000.0, "m:served",
    usage_event=b"usage", route="auto", tags=("a",),
)  # fmt: skip


def asked(question=QUESTION, tenant="acme"):
    return Asked(question, fingerprint(tenant, "auto", "1", {}), tenant, "auto")


@pytest.fixture
def socket():
    with tempfile.TemporaryDirectory(prefix="frugal-") as folder:
        yield Path(folder) / "s.sock"


@pytest.fixture
def loaded():
    return []


@pytest.fixture
def served(socket, loaded):
    """Return a process at work, in this one: what crosses the socket is the same."""

    def load(name):
        if name == "absent":
            raise EmbedderError("no embedder 'absent'")
        loaded.append(Lettered(name))
        return loaded[-1]

    @asynccontextmanager
    async def running():
        stopping = asyncio.Event()
        task = asyncio.create_task(serve(LocalHost(load=load), socket, stopping))
        while not socket.exists():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0)
        try:
            yield
        finally:
            stopping.set()
            await task
            socket.unlink(missing_ok=True)

    return running


async def keep(answers, question=QUESTION):
    vector = await answers.vector(question)
    await answers.keep(asked(question), vector, REPLY, answer="press reset", terms=TERMS)


async def test_what_one_worker_keeps_another_finds_whole(socket, served, loaded, tmp_path):
    place = Place("letters", tmp_path / "answers.db")
    async with (
        served(),
        RemoteHost(socket).answers(place) as one,
        RemoteHost(socket).answers(place) as other,
    ):
        await keep(one)
        vector = await other.vector(QUESTION)
        hit = await other.find(asked(), vector, TERMS)
        stats = await other.counted()

        assert hit.reply == REPLY
        assert [type(count) for count in hit.reply.usage.values()] == [int, float]
        assert hit.similarity == pytest.approx(1, abs=0.03)
        assert (stats.kept, stats.hits, await one.count()) == (1, 1, 1)
        assert await one.alike("the same", "the same") is True
    assert len(loaded) == 1


async def test_a_vector_crosses_the_socket_as_it_is(socket, served):
    async with served(), RemoteHost(socket).embedding("letters") as vectors:
        found = await asyncio.gather(*(vectors.whole(text) for text in ("abc", "b", "x" * 200)))

        assert np.array_equal(found[:2], Lettered().embed(["abc", "b"]))
        assert found[2] is None
        assert vectors.version == "letters"


async def test_what_is_forgotten_is_forgotten_for_all(socket, served, tmp_path):
    place = Place("letters", tmp_path / "answers.db")
    async with (
        served(),
        RemoteHost(socket).answers(place) as one,
        RemoteHost(socket).answers(place) as other,
    ):
        await keep(one)

        assert await other.drop(Scope(tenant="acme"), dry_run=True) == 1
        assert await other.drop(Scope(tenant="other")) == 0
        assert await other.drop(Scope(route="auto"), question=QUESTION) == 1
        assert await one.find(asked(), await one.vector(QUESTION), TERMS) is None


async def test_audits_of_all_workers_meet_in_one_budget(socket, served, tmp_path):
    place = Place("letters", tmp_path / "answers.db")
    async with (
        served(),
        RemoteHost(socket).answers(place) as one,
        RemoteHost(socket).answers(place) as other,
    ):
        for answers in (one, other):
            await keep(answers)
            hit = await answers.find(asked(), await answers.vector(QUESTION), TERMS)
            await answers.observe(asked(), hit.entry_id, TERMS, was_right=True)
        ((tenant, route, budget),) = await one.budgets()

    assert (tenant, route, budget.audited) == ("acme", "auto", 2)


async def test_while_the_process_is_away_nothing_is_found_and_then_all_is(socket, served, tmp_path):
    place = Place("letters", tmp_path / "answers.db")
    async with served():
        stack = RemoteHost(socket).answers(place)
        answers = await stack.__aenter__()
        await keep(answers)
        vector = await answers.vector(QUESTION)
    assert await answers.vector(QUESTION) is None
    assert await answers.find(asked(), vector, TERMS) is None
    with pytest.raises(StoreFailed, match="away"):
        await answers.count()

    async with served(), asyncio.timeout(20):
        while await answers.find(asked(), vector, TERMS) is None:  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.01)
        await stack.__aexit__(None, None, None)


async def test_one_that_hangs_is_waited_for_once(socket, served):
    asked_of_it = []

    async def hang(reader, writer):
        """Open what is asked for, and never answer again."""
        data = await reader.read(65536)
        asked_of_it.append(data)
        writer.write(b"\x00\x00\x00\x06\x93\x01\xc0\xa2v1")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(hang, socket)
    async with server:
        host = RemoteHost(socket, deadline_s=0.01, opens_within_s=5)
        async with host.answers(Place("letters", None)) as answers:
            assert answers.version == "v1"
            waiting = await asyncio.gather(*(answers.vector("abc") for _ in range(50)))
            assert waiting == [None] * 50
            assert answers.lost == 50


async def test_an_embedder_that_cannot_be_had_is_told_at_the_start(socket, served):
    async with served():
        with pytest.raises(EmbedderError, match="no embedder 'absent'"):
            async with RemoteHost(socket).answers(Place("absent", None)):
                pass


async def test_a_gateway_starts_where_the_process_does_not(socket, caplog):
    async with RemoteHost(socket, opens_within_s=0.01).answers(Place("letters", None)) as answers:
        assert await answers.vector("abc") is None
        assert answers.version == ""

    assert "not up yet" in caplog.text


async def test_bytes_of_another_kind_end_their_own_connection_alone(socket, served, caplog):
    async with served(), RemoteHost(socket).embedding("letters") as vectors:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00"):
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

        assert await vectors.whole("abc") is not None


async def test_a_call_that_fails_there_fails_alone(socket, served):
    async with served(), RemoteHost(socket).embedding("letters") as vectors:
        with pytest.raises(StoreFailed, match="cannot read this"):
            await vectors.whole("fail")

        assert await vectors.whole("abc") is not None
