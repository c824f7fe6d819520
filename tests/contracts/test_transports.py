"""What a transport promises, over the pool on both event loops and through a proxy."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from contextlib import AsyncExitStack

import pytest
import trustme

from gateway.errors import ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from gateway.upstream.pool import Pool
from gateway.upstream.proxied import Proxied
from gateway.upstream.types import Deadlines, Origin
from tests.support.forward_proxy import ForwardProxy
from tests.support.scripted_upstream import (
    FIN,
    RST,
    STREAM_END,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
)

PATIENT = Deadlines(10, 20, 20, 30)
HEADERS = (("authorization", "Bearer sk-1"), ("x-request-id", "r1"))


class Way:
    """Opens transports of one kind, and closes them after the test."""

    def __init__(self, kind, stack):
        self.kind = kind
        self._stack = stack
        self.proxy = None

    async def to(self, upstream, ca_file=None):
        origin = Origin.of_url(upstream.url, ca_file)
        if self.kind == "proxied":
            self.proxy = await self._stack.enter_async_context(ForwardProxy())
            transport = Proxied(origin, self.proxy.url)
        else:
            transport = Pool(origin)
        self._stack.push_async_callback(transport.aclose)
        return transport


@pytest.fixture(params=["pool", "proxied"])
async def way(request):
    async with AsyncExitStack() as stack:
        yield Way(request.param, stack)


async def post(transport, limits=PATIENT, body=b"{}"):
    return await transport.request("/v1/chat/completions", HEADERS, body, limits)


async def drain(response):
    pieces = []
    while piece := await response.next_chunk():
        pieces.append(piece)
    return b"".join(pieces)


async def test_whole_answer_arrives_with_status_and_headers(way):
    script = [answer(b'{"a": 1}', status="201 Created", headers={"Retry-After": "7"})]
    async with ScriptedUpstream([script]) as upstream:
        response = await post(await way.to(upstream))
        body = await response.read()

        assert (response.status, body) == (201, b'{"a": 1}')
        assert response.header("retry-after") == "7"
        assert response.header("absent") is None


async def test_request_arrives_as_it_was_meant(way):
    async with ScriptedUpstream([[answer(b"{}")]]) as upstream:
        await (await post(await way.to(upstream), body=b'{"q": "\xc3\xa9"}')).read()

        (request,) = upstream.requests
        assert request.method == "POST"
        assert request.path.endswith("/v1/chat/completions")
        assert request.body == b'{"q": "\xc3\xa9"}'
        assert request.headers["host"] == f"127.0.0.1:{upstream.port}"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == "Bearer sk-1"
        assert request.headers["x-request-id"] == "r1"


async def test_connection_serves_again(way):
    async with ScriptedUpstream([[answer(b"{}")]]) as upstream:
        transport = await way.to(upstream)
        for _ in range(3):
            await (await post(transport)).read()

        assert len(upstream.requests) == 3
        assert upstream.connections == 1


async def test_stream_arrives_piece_by_piece(way):
    hold = Hold()
    script = [STREAM_HEAD, chunk(b"one"), hold, chunk(b"two"), STREAM_END]
    async with ScriptedUpstream([script]) as upstream:
        response = await post(await way.to(upstream))
        first = await response.next_chunk()
        hold.release()
        rest = await drain(response)

        assert (first, rest) == (b"one", b"two")


async def test_answer_that_only_the_close_ends_is_whole(way):
    script = [b"HTTP/1.1 200 OK\r\n\r\n", b"all of it", FIN]
    async with ScriptedUpstream([script]) as upstream:
        assert await (await post(await way.to(upstream))).read() == b"all of it"


async def test_interim_answers_are_skipped(way):
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    script = [b"HTTP/1.1 100 Continue\r\n\r\n", interim, answer(b"real")]
    async with ScriptedUpstream([script]) as upstream:
        response = await post(await way.to(upstream))

        assert response.status == 200
        assert response.header("link") is None
        assert await response.read() == b"real"


async def test_redirect_is_an_answer_and_not_an_order(way):
    async with ScriptedUpstream([[answer(b"")]]) as trap:
        moved = answer(b"", status="302 Found", headers={"location": trap.url})
        async with ScriptedUpstream([[moved]]) as upstream:
            response = await post(await way.to(upstream))

            assert response.status == 302
            assert trap.connections == 0


async def test_silent_upstream_times_out_before_the_first_byte(way):
    async with ScriptedUpstream([[Hold()]]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderTimeout, match="first_token"):
            await post(transport, Deadlines(10, 0.05, 20, 30))
        await upstream.until_gone()


async def test_silence_after_the_head_still_counts_as_before_the_first_byte(way):
    async with ScriptedUpstream([[STREAM_HEAD, Hold()]]) as upstream:
        response = await post(await way.to(upstream), Deadlines(10, 0.3, 20, 30))
        with pytest.raises(ProviderTimeout, match="first_token"):
            await response.next_chunk()
        await upstream.until_gone()


async def test_stream_that_stalls_times_out_as_idle(way):
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), Hold()]]) as upstream:
        response = await post(await way.to(upstream), Deadlines(10, 20, 0.05, 30))
        assert await response.next_chunk() == b"one"
        response.has_started = True
        with pytest.raises(ProviderTimeout, match="idle"):
            await response.next_chunk()
        await upstream.until_gone()


async def test_whole_answer_that_stalls_amid_its_body_times_out_as_idle(way):
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), Hold()]]) as upstream:
        response = await post(await way.to(upstream), Deadlines(10, 20, 0.05, 30))
        with pytest.raises(ProviderTimeout, match="idle"):
            await response.read()
        await upstream.until_gone()


async def test_total_deadline_holds_whatever_the_others_say(way):
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), Hold()]]) as upstream:
        transport = await way.to(upstream)

        async def answered():
            # On a slow machine the time is over before the answer begins, and that is in time, too.
            response = await post(transport, Deadlines(60, 60, 60, 0.5))
            response.has_started = True
            await drain(response)

        with pytest.raises(ProviderTimeout, match="total"):
            await answered()


@pytest.mark.parametrize("end", [FIN, RST])
async def test_connection_that_ends_without_an_answer_is_unavailable(way, end):
    async with ScriptedUpstream([[end]]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderUnavailable):
            await post(transport)

        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "script",
    [
        [STREAM_HEAD, chunk(b"one"), FIN],
        [STREAM_HEAD, b"5\r\nab", FIN],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfive!", FIN],
    ],
)
async def test_answer_cut_short_is_broken(way, script):
    async with ScriptedUpstream([script]) as upstream:
        response = await post(await way.to(upstream))
        with pytest.raises(ProviderProtocolError, match="ended the connection"):
            await response.read()


async def test_reset_amid_the_answer_is_no_end(way):
    hold = Hold()
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), hold, RST]]) as upstream:
        response = await post(await way.to(upstream))
        assert await response.next_chunk() == b"one"
        hold.release()
        with pytest.raises((ProviderUnavailable, ProviderProtocolError)):
            await response.next_chunk()


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ],
)
async def test_garbage_is_broken(way, garbage):
    async with ScriptedUpstream([[garbage, Hold()]]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderProtocolError, match=r"127\.0\.0\.1"):
            await post(transport)


async def test_chunk_of_no_known_size_is_broken(way):
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), b"zz\r\n", Hold()]]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderProtocolError):
            await (await post(transport)).read()


@pytest.mark.parametrize("line", [b"x: " + b"y" * 1000, b"x" * 70_000 + b": y"])
async def test_headers_beyond_64_kib_are_refused(way, line):
    lines = b"".join(b"%d%s\r\n" % (i, line) for i in range(300))
    script = [b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", Hold()]
    async with ScriptedUpstream([script]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderProtocolError):
            await post(transport)


async def test_interim_answers_without_end_are_refused(way):
    endless = [b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" * 1000] * 100
    async with ScriptedUpstream([[*endless, Hold()]]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises((ProviderProtocolError, ProviderTimeout)):
            await post(transport, Deadlines(10, 0.5, 0.5, 0.5))


async def test_body_beyond_the_cap_is_refused_and_no_longer_received(way):
    endless = [STREAM_HEAD, *[chunk(b"x" * 65536)] * 64, Hold()]
    async with ScriptedUpstream([endless]) as upstream:
        response = await post(await way.to(upstream))
        with pytest.raises(ProviderProtocolError, match="100000 bytes"):
            await response.read(100_000)
        response.abort()


async def test_body_of_just_the_cap_is_read(way):
    async with ScriptedUpstream([[answer(b"x" * 100_000)]]) as upstream:
        response = await post(await way.to(upstream))

        assert len(await response.read(100_000)) == 100_000


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_answer_is_decoded_all_the_same(way, name, pack):
    packed = answer(pack(b"x" * 5000), headers={"content-encoding": name})
    async with ScriptedUpstream([[packed]]) as upstream:
        transport = await way.to(upstream)

        assert await (await post(transport)).read() == b"x" * 5000
        assert await drain(await post(transport)) == b"x" * 5000


async def test_decompression_bomb_is_refused(way):
    bomb = answer(gzip.compress(bytes(4_000_000)), headers={"content-encoding": "gzip"})
    async with ScriptedUpstream([[bomb]]) as upstream:
        response = await post(await way.to(upstream))
        with pytest.raises(ProviderProtocolError, match="more than"):
            await response.read(100_000)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
async def test_other_encodings_are_refused(way, encoding):
    script = [answer(b"??", headers={"content-encoding": encoding})]
    async with ScriptedUpstream([script]) as upstream:
        transport = await way.to(upstream)
        with pytest.raises(ProviderProtocolError, match="identity"):
            await post(transport)


async def test_broken_compression_is_broken(way):
    script = [answer(b"not gzip at all", headers={"content-encoding": "gzip"})]
    async with ScriptedUpstream([script]) as upstream:
        response = await post(await way.to(upstream))
        with pytest.raises(ProviderProtocolError, match="compressed"):
            await response.read()


async def test_closed_idle_connections_cost_no_answer(way):
    async with ScriptedUpstream([[answer(b"{}"), FIN]]) as upstream:
        transport = await way.to(upstream)
        for _ in range(20):
            assert await (await post(transport)).read() == b"{}"

        assert len(upstream.requests) == 20


async def test_consumer_that_leaves_closes_the_connection(way):
    async with ScriptedUpstream([[STREAM_HEAD, chunk(b"one"), Hold()]]) as upstream:
        response = await post(await way.to(upstream))
        await response.next_chunk()
        response.abort()
        response.abort()

        await upstream.until_gone()


async def test_cancelled_request_closes_the_connection(way):
    hold = Hold()
    async with ScriptedUpstream([[hold]]) as upstream:
        task = asyncio.ensure_future(post(await way.to(upstream)))
        await hold.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await upstream.until_gone()


async def test_tls_is_checked_against_the_given_authority(way, tmp_path):
    authority, stranger = trustme.CA(), trustme.CA()
    tls = _server_context(authority)
    for name, ca in (("good.pem", authority), ("bad.pem", stranger)):
        ca.cert_pem.write_to_path(tmp_path / name)
    async with ScriptedUpstream([[answer(b"{}")]], tls=tls) as upstream:
        trusting = await way.to(upstream, tmp_path / "good.pem")
        doubting = await way.to(upstream, tmp_path / "bad.pem")

        assert await (await post(trusting)).read() == b"{}"
        with pytest.raises(ProviderUnavailable):
            await post(doubting)
        assert len(upstream.requests) == 1


async def test_proxy_is_asked_for_the_origin(way):
    async with ScriptedUpstream([[answer(b"{}")]]) as upstream:
        transport = await way.to(upstream)
        await (await post(transport)).read()

        if way.proxy is not None:
            assert way.proxy.targets == [f"POST 127.0.0.1:{upstream.port}"]


def _server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
