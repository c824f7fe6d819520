"""Who is asking: the policy's static keys and those of the store, checked from memory."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from gateway.errors import Forbidden, InvalidRequest, Unauthenticated
from policies.limits import Limits
from policies.schema import Access

if TYPE_CHECKING:
    from gateway.access.key_watch import KnownKeys

_MAX_KEY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is accounted to. Empty `scopes` means every route and model.

    `limits` are its own; what is not written there is as the policy says for every key.
    Without `may_learn`, nothing is asked again behind its back, and nothing learnt from it.
    """

    key: str
    tenant: str
    tags: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    limits: Limits | None = None
    may_learn: bool = True

    def require(self, name: str) -> None:
        """Raise Forbidden unless this caller may use the route or model `name`."""
        if self.scopes and name not in self.scopes:
            allowed = ", ".join(sorted(self.scopes))
            raise Forbidden(f"this key may not use {name!r}; it is limited to: {allowed}")

    @property
    def is_admin(self) -> bool:
        """Return whether the admin port is open to this caller."""
        return "admin" in self.scopes

    @property
    def may_read(self) -> bool:
        """Return whether this caller may look at the reports of the admin port."""
        return self.is_admin or "read" in self.scopes


ANONYMOUS = Caller(key="anonymous", tenant="default")


class KeyRing:
    """The keys of one policy, held as keyed digests so that no key stays in memory twice.

    A lookup by digest leaks nothing of the key through its timing: the digest's
    secret is drawn anew in each process. `made` are the keys of the store.
    """

    def __init__(self, access: Access, made: KnownKeys | None = None) -> None:
        self._made = made
        self._secret = secrets.token_bytes(32)
        self._open_on_loopback = access.anonymous == "loopback"
        self._callers = {
            self._digest(key.key.get_secret_value().encode()): Caller(
                key.name,
                key.tenant,
                frozenset(key.tags),
                frozenset(key.scopes),
                key.limits,
                key.background,
            )
            for key in access.keys
        }

    def callers(self) -> list[Caller]:
        """Return whom the keys stand for, those of the store included."""
        made = self._made.callers() if self._made is not None else ()
        return [*self._callers.values(), *made]

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._secret, digest_size=16).digest()

    def identify(self, authorization: bytes | None, client: str | None, host: bytes) -> Caller:
        """Return who is asking.

        `authorization` is the raw header, `client` the peer's address (None on
        a Unix socket). Where no key is configured and loopback is open, any key
        is taken as none, since OpenAI's clients cannot send none. Raises
        Unauthenticated or InvalidRequest (a Host that a rebound name would carry).
        """
        if authorization is not None and (caller := self.known(authorization)):
            return caller
        is_open = self._open_on_loopback and is_loopback(client)
        if is_open and (authorization is None or not (self._callers or self._made)):
            if not is_loopback_host(host):
                raise InvalidRequest(
                    "anonymous access needs a loopback Host header such as 127.0.0.1 or localhost"
                )
            return ANONYMOUS
        if authorization is None:
            raise Unauthenticated("no API key given; send it as 'Authorization: Bearer KEY'")
        raise Unauthenticated("this API key is not known here")

    def known(self, authorization: bytes) -> Caller | None:
        """Return whom a raw header's key stands for; None where nobody has it."""
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or len(key) > _MAX_KEY_BYTES:
            return None
        key = key.strip()
        caller = self._callers.get(self._digest(key))
        if caller is None and self._made is not None:
            caller = self._made.find(key)
        return caller


def is_loopback(client: str | None) -> bool:
    """Return whether a client is on this machine, as one of a Unix socket, without address, is."""
    if client is None:
        return True
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


def is_loopback_host(host: bytes) -> bool:
    """Return whether a Host header names this machine, so that no rebound DNS name passes."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    return name in ("localhost", "") or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
