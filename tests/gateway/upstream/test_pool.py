"""What the pool does with its connections; what any transport does is under tests/contracts."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.errors import ProviderTimeout, ProviderUnavailable
from gateway.upstream.exchange import HIGH_WATER
from gateway.upstream.pool import Pool
from gateway.upstream.types import Deadlines, Origin
from tests.support.scripted_upstream import (
    FIN,
    RST,
    STREAM_END,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
    stream,
)

PATIENT = Deadlines(10, 20, 20, 30)


@asynccontextmanager
async def pool_to(upstream, **options):
    pool = Pool(Origin.of_url(upstream.url), **options)
    try:
        yield pool
    finally:
        await pool.aclose()


async def ask(pool, limits=PATIENT):
    response = await pool.request("/", (), b"{}", limits)
    return await response.read()


async def asking(pool, limits=PATIENT):
    """Begin a request in a task of its own, and let it run until it waits."""
    task = asyncio.ensure_future(ask(pool, limits))
    await asyncio.sleep(0)
    return task


async def test_requests_beyond_the_bound_wait_and_are_served_in_order():
    holds = [Hold(), Hold()]
    scripts = [[hold, answer(b"%d" % i)] for i, hold in enumerate(holds)]
    scripts += [[answer(b"2")], [answer(b"3")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream, size=2) as pool:
        first, second = await asking(pool), await asking(pool)
        await holds[1].reached.wait()
        third, fourth = await asking(pool), await asking(pool)
        assert len(upstream.requests) == 2
        holds[0].release()
        answers = [await task for task in (first, third, fourth)]
        holds[1].release()

        assert answers == [b"0", b"2", b"3"]
        assert await second == b"1"
        assert upstream.connections == 2


async def test_waiting_for_a_slot_counts_as_connecting():
    hold = Hold()
    async with ScriptedUpstream([[hold]]) as upstream, pool_to(upstream, size=1) as pool:
        first = await asking(pool)
        await hold.reached.wait()
        with pytest.raises(ProviderTimeout, match="busy"):
            await ask(pool, Deadlines(0.05, 20, 20, 30))
        first.cancel()
        await asyncio.wait([first])


async def test_waiter_that_leaves_takes_no_slot_with_it():
    hold = Hold()
    scripts = [[hold, answer(b"1")], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream, size=1) as pool:
        first = await asking(pool)
        await hold.reached.wait()
        leaver, stayer = await asking(pool), await asking(pool)
        leaver.cancel()
        hold.release()

        assert await first == b"1"
        assert await stayer == b"2"
        assert leaver.cancelled()


async def test_waiter_that_leaves_as_its_turn_comes_passes_it_on():
    hold = Hold()
    scripts = [[hold, answer(b"1")], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream, size=1) as pool:
        first = await asking(pool)
        await hold.reached.wait()
        leaver, stayer = await asking(pool), await asking(pool)
        first.add_done_callback(lambda _: leaver.cancel())
        hold.release()

        assert await first == b"1"
        assert await stayer == b"2"


async def test_slot_of_an_aborted_exchange_goes_to_the_next_waiter():
    scripts = [[STREAM_HEAD, chunk(b"1"), Hold()], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream, size=1) as pool:
        response = await pool.request("/", (), b"{}", PATIENT)
        waiting = await asking(pool)
        response.abort()

        assert await waiting == b"2"
        assert upstream.connections == 2


async def test_failed_connect_gives_its_slot_back():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        pool = Pool(Origin("127.0.0.1", unused.getsockname()[1]), size=1)
        for _ in range(3):
            with pytest.raises(
                ProviderUnavailable, match=r"127\.0\.0\.1:\d+ could not be connected"
            ):
                await ask(pool)
        await pool.aclose()


async def test_name_that_does_not_resolve_is_unavailable():
    pool = Pool(Origin("nowhere.invalid"))
    with pytest.raises(ProviderUnavailable, match=r"nowhere\.invalid"):
        await ask(pool)


async def test_connect_deadline_is_kept():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = [_connecting(address) for _ in range(4)]
        pool = Pool(Origin(*address))
        with pytest.raises(ProviderTimeout, match="connect"):
            await ask(pool, Deadlines(0.05, 20, 20, 30))
        for filler in fillers:
            filler.close()


def _connecting(address):
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex(address)
    return filler


async def test_reused_connection_that_closes_unanswered_is_tried_once_more():
    scripts = [[answer(b"1")], [FIN], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream) as pool:
        assert await ask(pool) == b"1"
        assert await ask(pool) == b"2"
        assert upstream.connections == 2


async def test_second_failure_is_final():
    scripts = [[answer(b"1")], [FIN], [FIN], [answer(b"never")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream) as pool:
        await ask(pool)
        with pytest.raises(ProviderUnavailable, match="without an answer"):
            await ask(pool)
        assert len(upstream.requests) == 3


async def test_nothing_is_tried_again_once_a_byte_of_answer_came():
    scripts = [[answer(b"1")], [b"HTTP/1.1 200", RST], [answer(b"never")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream) as pool:
        await ask(pool)
        with pytest.raises(ProviderUnavailable, match="broke"):
            await ask(pool)
        assert len(upstream.requests) == 2


async def test_retry_opens_a_connection_even_where_all_slots_are_idle():
    hold = Hold()
    scripts = [[hold, answer(b"1")], [answer(b"2")], [FIN], [answer(b"3")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream, size=2) as pool:
        first = await asking(pool)
        await hold.reached.wait()
        assert await ask(pool) == b"2"
        hold.release()
        await first

        assert await ask(pool) == b"3"


async def test_answer_with_more_bytes_than_it_announced_ends_its_connection():
    tainted = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1HTTP/1.1 200 OK\r\n"
    scripts = [[tainted + b"content-length: 6\r\n\r\nforged"], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream) as pool:
        assert await ask(pool) == b"1"
        assert await ask(pool) == b"2"
        assert upstream.connections == 2


async def test_bytes_that_nobody_asked_for_end_an_idle_connection():
    hold = Hold()
    forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
    scripts = [[answer(b"1"), hold, forged, Hold()], [answer(b"2")]]
    async with ScriptedUpstream(scripts) as upstream, pool_to(upstream) as pool:
        assert await ask(pool) == b"1"
        hold.release()
        await upstream.until_gone()

        assert await ask(pool) == b"2"


async def test_trailers_do_not_reach_the_next_answer():
    trailed = [STREAM_HEAD, chunk(b"1"), b"0\r\nretry-after: 99\r\n\r\n"]
    async with ScriptedUpstream([trailed, [answer(b"2")]]) as upstream, pool_to(upstream) as pool:
        assert await ask(pool) == b"1"
        response = await pool.request("/", (), b"{}", PATIENT)

        assert response.header("retry-after") is None
        assert await response.read() == b"2"
        assert upstream.connections == 1


async def test_connection_close_is_respected():
    closing = answer(b"1", headers={"connection": "close"})
    async with ScriptedUpstream([[closing]]) as upstream, pool_to(upstream) as pool:
        await ask(pool)
        await ask(pool)

        assert upstream.connections == 2


async def test_upstream_is_not_read_faster_than_its_consumer():
    piece = chunk(b"x" * 65536)
    script = [STREAM_HEAD, *[piece] * 400, STREAM_END]
    async with ScriptedUpstream([script]) as upstream, pool_to(upstream) as pool:
        response = await pool.request("/", (), b"{}", PATIENT)
        await _until(lambda: response.is_full)
        assert response.size < 3 * HIGH_WATER
        received = 0
        while data := await response.next_chunk():
            received += len(data)

        assert received == 400 * 65536


async def _until(holds):
    """Let the loop turn until something is so that no event tells of."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_finished_answer_leaves_its_connection_to_the_next():
    hold = Hold()
    late = [STREAM_HEAD, chunk(b"1"), hold, chunk(b"rest"), STREAM_END]
    async with ScriptedUpstream([late, [answer(b"2")]]) as upstream, pool_to(upstream) as pool:
        response = await pool.request("/", (), b"{}", PATIENT)
        await response.next_chunk()
        response.finish()
        response.abort()
        hold.release()
        await _until(lambda: pool.idle)

        assert await ask(pool) == b"2"
        assert upstream.connections == 1


async def test_finished_answer_that_goes_on_and_on_is_closed():
    endless = [STREAM_HEAD, chunk(b"1"), *[chunk(b"x" * 65536)] * 100, Hold()]
    async with ScriptedUpstream([endless]) as upstream, pool_to(upstream) as pool:
        response = await pool.request("/", (), b"{}", PATIENT)
        response.finish()

        await upstream.until(lambda: upstream.open == 0)


async def test_connection_idle_for_too_long_is_closed():
    async with (
        ScriptedUpstream([[answer(b"{}")]]) as upstream,
        pool_to(upstream, keep_idle_s=0.05) as pool,
    ):
        await ask(pool)
        await upstream.until(lambda: upstream.open == 0)

        assert pool.idle == 0


async def test_connection_closed_by_the_upstream_leaves_the_pool():
    async with ScriptedUpstream([[answer(b"{}"), FIN]]) as upstream, pool_to(upstream) as pool:
        await ask(pool)
        await _until(lambda: not pool.idle)


async def test_unix_socket_is_an_origin_too(tmp_path):
    path = tmp_path / "s"
    async with ScriptedUpstream([stream(b"data: 1\n\n")], uds=path) as upstream:
        pool = Pool(Origin.of_socket(path))
        assert (await ask(pool)).startswith(b"data: 1")
        assert upstream.requests[0].headers["host"] == "localhost"
        await pool.aclose()


async def test_missing_socket_is_unavailable_at_once(tmp_path):
    pool = Pool(Origin.of_socket(tmp_path / "none"))
    with pytest.raises(ProviderUnavailable, match="socket none could not be connected"):
        await ask(pool)


async def test_closing_the_pool_ends_requests_under_way_and_refuses_new_ones():
    hold = Hold()
    async with ScriptedUpstream([[hold]]) as upstream:
        pool = Pool(Origin.of_url(upstream.url), size=1)
        running = await asking(pool)
        await hold.reached.wait()
        waiting = await asking(pool)
        await pool.aclose()

        for task in (running, waiting):
            with pytest.raises(ProviderUnavailable):
                await task
        with pytest.raises(ProviderUnavailable, match="closed"):
            await ask(pool)


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\rb"])
async def test_header_cannot_break_out_of_its_line(value):
    pool = Pool(Origin("127.0.0.1", 1))
    with pytest.raises(ValueError, match="line break") as caught:
        await pool.request("/", (("x-request-id", value),), b"{}", PATIENT)
    assert value not in str(caught.value)


@pytest.mark.parametrize("path", ["", "v1", "/a b", "/a\r\nx: y"])
async def test_path_must_be_one(path):
    with pytest.raises(ValueError, match="path"):
        await Pool(Origin("127.0.0.1", 1)).request(path, (), b"{}", PATIENT)


async def test_hundred_clients_share_a_few_connections():
    def echo(request):
        return [answer(request.body)]

    async def one(pool, number):
        body = b"%d" % number
        return await (await pool.request("/", (), body, PATIENT)).read() == body

    async with ScriptedUpstream(echo) as upstream, pool_to(upstream, size=8) as pool:
        results = await asyncio.gather(*(one(pool, i) for i in range(100)))

        assert all(results)
        assert upstream.connections <= 8
