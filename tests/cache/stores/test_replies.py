from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest

from cache.stores.replies import Replies


@asynccontextmanager
async def reading(
    pieces: list[bytes],
) -> AsyncIterator[tuple[list[Any], asyncio.Future[Exception]]]:
    """Yield what was taken from a server that says these pieces and hangs up, and how it ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            await reader.readexactly(1)  # one byte of ours lets it say the next piece
            writer.write(piece)
        writer.close()

    taken: list[Any] = []
    lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        replies = Replies(transport, taken.append, lost.set_result)
        for _ in pieces:
            replies.write(b".")
        yield taken, lost
        transport.abort()


async def test_replies_are_handed_out_whole_however_they_arrive() -> None:
    pieces = [b"+OK\r\n$3\r\na", b"bc\r\n*2\r\n:1\r\n", b"$-1\r\n"]
    async with reading(pieces) as (taken, lost):
        await lost

    assert taken == [b"OK", b"abc", [1, None]]


async def test_an_error_is_a_reply_and_those_behind_it_come() -> None:
    async with reading([b"-ERR no\r\n+OK\r\n"]) as (taken, lost):
        await lost

    assert isinstance(taken[0], hiredis.ReplyError)
    assert taken[1:] == [b"OK"]


async def test_what_is_no_redis_ends_the_connection() -> None:
    async with reading([b"HTTP/1.1 400 Bad Request\r\n"]) as (taken, lost):
        ended = await lost

    assert isinstance(ended, hiredis.ProtocolError)
    assert taken == []


@pytest.mark.parametrize("pieces", [[b"+OK\r\n"], [b"$5\r\nab"]])
async def test_a_server_that_hangs_up_is_told_of_once(pieces: list[bytes]) -> None:
    async with reading(pieces) as (_, lost):
        ended = await lost

    assert isinstance(ended, ConnectionError)
