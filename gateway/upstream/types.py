"""Where an upstream is, how long it may take, and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from gateway.errors import ProviderError

Headers = Sequence[tuple[str, str]]

MAX_HEAD = 64 * 1024
"""Bytes of status line and headers that an upstream may send."""

MAX_BODY = 32 * 1024 * 1024
"""Decoded bytes of a whole reply."""

DRAIN_BYTES = 64 * 1024
"""Unwanted bytes that are read to keep a connection; beyond, a new one is cheaper."""

ENDING_S = 2.0
"""How long an upstream whose reply is complete may take to say so."""


class Deadlines(NamedTuple):
    """How long one exchange may take, in seconds.

    `first_byte` runs from the request until the reply has begun, `idle`
    between two pieces of the reply, `total` over everything.
    """

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Origin:
    """A server: host and port, or a Unix socket.

    With `ca_file`, only certificates signed by its authorities are accepted.
    """

    host: str
    port: int = 80
    is_tls: bool = False
    ca_file: Path | None = None
    socket: Path | None = None

    @classmethod
    def of_url(cls, url: str, ca_file: Path | None = None) -> Origin:
        """Return the origin of an http or https URL. Raises ValueError for any other."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValueError(f"expected http(s)://host[:port][/path], found {url!r}")
        is_tls = parts.scheme == "https"
        host = parts.hostname.encode("idna").decode()
        return cls(host, parts.port or (443 if is_tls else 80), is_tls, ca_file)

    @classmethod
    def of_socket(cls, path: Path) -> Origin:
        """Return the origin behind a Unix socket."""
        return cls("localhost", socket=path)

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    @property
    def label(self) -> str:
        """Return what messages call this server."""
        return f"socket {self.socket.name}" if self.socket else self.authority


class Response(Protocol):
    """The answer of an upstream, from its head on.

    Set `has_started` once the reply has begun in earnest: from then on the
    idle deadline holds. Set `is_ending` once nothing more is needed but the end.
    """

    status: int
    has_started: bool
    is_ending: bool

    def header(self, name: str) -> str | None:
        """Return a header's value; `name` in lower case."""
        ...

    async def read(self, cap: int = MAX_BODY) -> bytes:
        """Return the whole body. Raises ProviderError, also for more than `cap` bytes."""
        ...

    async def next_chunk(self) -> bytes:
        """Return what has arrived since the last call, and b"" at the end. Raises ProviderError."""
        ...

    def abort(self) -> None:
        """Close the connection unless the answer is complete; what is left is not wanted."""
        ...

    def finish(self) -> None:
        """Let the rest arrive unread, so that the connection may serve again."""
        ...


Again = Callable[[ProviderError], Awaitable[None] | None]
"""Hears of a request that was sent in vain, and may yet be billed, before it is sent again."""


class Transport(Protocol):
    """A way to one origin."""

    async def request(
        self,
        path: str,
        headers: Headers,
        body: bytes,
        deadlines: Deadlines,
        again: Again | None = None,
    ) -> Response:
        """Post a JSON body and return the answer once its head is there.

        `again` is told before it is sent a second time, which happens where an idle
        connection turns out to be gone. Never follows redirects. Raises ProviderTimeout,
        ProviderUnavailable or ProviderProtocolError.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


Connector = Callable[[Origin], Transport]
"""Gives the way to an origin: a pool, or one through a proxy."""
