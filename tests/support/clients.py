"""Clients that do what libraries do not let them: leave in the middle, and speak byte by byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self


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
