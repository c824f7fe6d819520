"""Who has logged in to the admin port with a browser: tokens, in memory, for half a day.

A session keeps the key that it began with and asks for it again at every request, so one
that is revoked, or that may no longer what it might, ends at once.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

LASTS_S = 12 * 3600.0
MOST = 1_000
TRIES = 10
PER_S = 300.0
_MOST_CLIENTS = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """One browser. `csrf` must come with whatever changes something."""

    authorization: bytes
    csrf: str
    ends_at: float

    def is_from_us(self, csrf: str | None) -> bool:
        """Return whether a page of ours sent this, since only those can read the token."""
        return csrf is not None and hmac.compare_digest(csrf.encode(), self.csrf.encode())


class Sessions:
    """The sessions of one process. `wall` is seconds since the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._found: dict[bytes, Session] = {}

    def begin(self, authorization: bytes) -> tuple[str, Session]:
        """Begin one, and return the token that stands for it; beyond `MOST`, the oldest ends."""
        self._forget()
        while len(self._found) >= MOST:
            del self._found[next(iter(self._found))]
        token = secrets.token_urlsafe(32)
        session = Session(authorization, secrets.token_urlsafe(32), self._wall() + LASTS_S)
        self._found[_digest(token)] = session
        return token, session

    def find(self, token: str | None) -> Session | None:
        """Return the session of a token, None where there is none or it has ended."""
        found = self._found.get(_digest(token)) if token else None
        return found if found is not None and self._wall() < found.ends_at else None

    def end(self, token: str | None) -> None:
        """End one."""
        if token:
            self._found.pop(_digest(token), None)

    def _forget(self) -> None:
        now = self._wall()
        self._found = {key: each for key, each in self._found.items() if now < each.ends_at}


class Tries:
    """How often each client was wrong of late: `TRIES` in `PER_S` seconds are let pass."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._wrong: dict[str, list[float]] = {}

    def wait_s(self, client: str) -> float:
        """Return how long a client must wait before it may try again."""
        now = self._wall()
        recent = [at for at in self._wrong.get(client, ()) if at > now - PER_S]
        return recent[-TRIES] + PER_S - now if len(recent) >= TRIES else 0.0

    def failed(self, client: str) -> None:
        """Count a wrong key."""
        now = self._wall()
        recent = [at for at in self._wrong.pop(client, ()) if at > now - PER_S]
        self._wrong[client] = [*recent[-TRIES:], now]
        while len(self._wrong) > _MOST_CLIENTS:
            del self._wrong[next(iter(self._wrong))]


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
