"""What is particular to the way through a proxy; the rest is under tests/contracts."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack

import pytest
import trustme

from gateway.errors import ProviderUnavailable
from gateway.upstream.proxied import Proxied
from gateway.upstream.types import Deadlines, Origin
from tests.support.forward_proxy import ForwardProxy
from tests.support.scripted_upstream import (
    STREAM_END,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
)

PATIENT = Deadlines(10, 20, 20, 30)


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


async def through_proxy(stack, origin):
    proxy = await stack.enter_async_context(ForwardProxy())
    transport = Proxied(origin, proxy.url)
    stack.push_async_callback(transport.aclose)
    return transport, proxy


async def ask(transport):
    return await (await transport.request("/v1", (), b"{}", PATIENT)).read()


async def test_plain_requests_go_by_their_absolute_url(stack):
    upstream = await stack.enter_async_context(ScriptedUpstream([[answer(b"{}")]]))
    transport, proxy = await through_proxy(stack, Origin.of_url(upstream.url))
    await ask(transport)

    assert proxy.targets == [f"POST 127.0.0.1:{upstream.port}"]
    assert upstream.requests[0].path == f"http://127.0.0.1:{upstream.port}/v1"


async def test_tls_goes_through_a_tunnel_that_the_proxy_cannot_read(stack, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = _server_context(authority)
    upstream = await stack.enter_async_context(ScriptedUpstream([[answer(b"{}")]], tls=tls))
    origin = Origin.of_url(upstream.url, tmp_path / "ca.pem")
    transport, proxy = await through_proxy(stack, origin)
    await ask(transport)

    assert proxy.targets == [f"CONNECT 127.0.0.1:{upstream.port}"]
    assert upstream.requests[0].path == "/v1"


async def test_proxy_that_is_down_makes_the_upstream_unavailable(stack):
    proxy = await stack.enter_async_context(ForwardProxy())
    transport = Proxied(Origin("api.example.com"), proxy.url)
    stack.push_async_callback(transport.aclose)
    await proxy.__aexit__()
    with pytest.raises(ProviderUnavailable, match="through the proxy"):
        await ask(transport)


async def test_finished_answer_leaves_its_connection_to_the_next(stack):
    hold = Hold()
    late = [STREAM_HEAD, chunk(b"one"), hold, chunk(b"rest"), STREAM_END]
    upstream = await stack.enter_async_context(ScriptedUpstream([late, [answer(b"two")]]))
    transport, _ = await through_proxy(stack, Origin.of_url(upstream.url))
    response = await transport.request("/v1", (), b"{}", PATIENT)
    await response.next_chunk()
    response.finish()
    response.abort()
    hold.release()
    async with asyncio.timeout(20):
        while transport.closing:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0)

    assert await ask(transport) == b"two"
    assert upstream.connections == 1


def _server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
