"""Clients that do what libraries do not let them: leave in the middle, and speak byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import select
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple, Self


class RawClient:
    """One connection that says exactly what it is told."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.transport.abort()

    async def post(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        """Send a request and do not wait for its answer."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()

    async def until(self, text: bytes) -> bytes:
        """Read until the text has come."""
        async with asyncio.timeout(20):
            return await self.reader.readuntil(text)

    def leave(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


class StandstillClient:
    """A client that asks, and reads no byte before it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.setblocking(False)

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._socket.close()

    async def post(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> None:
        """Send a request, and read nothing of its answer."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(self._socket, head.encode() + data)

    async def until(self, text: bytes) -> bytes:
        """Begin to read, until the text has come."""
        told = bytearray()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        async with asyncio.timeout(20):
            while text not in told[-65_536 - len(text) :]:
                told += await asyncio.get_running_loop().sock_recv(self._socket, 65_536)
        return bytes(told)

    async def until_cut_off(self) -> None:
        """Read nothing, until the other end has given the connection up."""
        poll = select.poll()
        poll.register(self._socket, 0)  # an error is told unasked
        async with asyncio.timeout(20):
            while not poll.poll(0):  # noqa: ASYNC110 - no loop waits for errors alone
                await asyncio.sleep(0.01)


class Heard(NamedTuple):
    """One answer as it came over a socket."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """Return OpenAI's error envelope, which must be one to the letter."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str)
        assert error["message"]
        assert self.headers["x-request-id"].startswith("req_")
        return error


def say(port: int, *pieces: bytes, method: str = "POST") -> Heard:
    """Send bytes as they are and return the answer; what cannot be sent any more is left."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                sock.sendall(piece)
        with contextlib.closing(http.client.HTTPResponse(sock, method=method)) as response:
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Heard(response.status, headers, response.read())


def post(port: int, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> Heard:
    """Post a body with its length."""
    named = {"host": "127.0.0.1", "content-length": str(len(body)), **headers}
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in named.items())
    return say(port, f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
