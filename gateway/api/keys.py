"""The admin port's endpoints for the keys that clients send."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import Field

from gateway.access.key_exchange import store_of_all
from gateway.access.key_store import (
    Holder,
    KeyStore,
    KeyStoreError,
    OtherSecret,
    keys_path,
    shown,
)
from gateway.api.guests import named_admin
from gateway.errors import InvalidRequest, SecretMismatch
from policies.limits import Limits
from policies.scalars import Duration, DurationOrZero, Name
from policies.section import Section

if TYPE_CHECKING:
    from gateway.app import Running

_log = logging.getLogger(__name__)


class NewKey(Section):
    """What a new key may do; nothing else can be said of one."""

    name: Name
    tenant: Name = "default"
    scopes: tuple[Name, ...] = Field((), max_length=64)
    tags: tuple[Name, ...] = Field((), max_length=64)
    expires: Duration | None = None
    limits: Limits | None = None


class Rotation(Section):
    """How long the key before still works."""

    grace: DurationOrZero = 0.0


def _running(request: Request) -> Running:
    running: Running = request.app.state.running
    return running


Gateway = Annotated["Running", Depends(_running)]


@contextmanager
def _store(running: Running, *, makes: bool = True) -> Iterator[KeyStore]:
    """Yield the store, brought together with those of other machines before and after.

    Raises SecretMismatch where a key would be made that nobody knows, InvalidRequest.
    """
    path = keys_path(running.spool_url)
    shared = store_of_all(path, os.environ, running.keys_at, tell=_tell, makes=makes)
    try:
        with shared as store:
            yield store
    except OtherSecret as exc:
        raise SecretMismatch(str(exc)) from exc
    except KeyStoreError as exc:
        raise InvalidRequest(str(exc), param="name") from exc


def _tell(why: str) -> None:
    _log.warning("%s; it is tried again", why)


def keys_routes(app: FastAPI) -> None:
    """Add `/admin/keys`; each endpoint asks for an admin by name."""
    routes = APIRouter(prefix="/admin/keys", dependencies=[Depends(named_admin)])

    @routes.get("")
    def keys(running: Gateway) -> dict[str, Any]:
        """Return every key that is known on this machine, without the key itself."""
        store = KeyStore(keys_path(running.spool_url), os.environ)
        now = time.time()
        return {"data": [shown(kept, now) for kept in store.kept()] if store.exists else []}

    @routes.post("")
    def make(new: NewKey, running: Gateway) -> dict[str, str]:
        """Make a key and return it, once."""
        scopes, tags = frozenset(new.scopes), frozenset(new.tags)
        holder = Holder(new.name, new.tenant, scopes, tags, new.limits)
        now = time.time()
        end = None if new.expires is None else now + new.expires
        with _store(running) as store:
            store.init()
            key = store.make(holder, now=now, expires_at=end)
        return {"name": new.name, "key": key}

    @routes.post("/{name:path}/rotate")
    def rotate(name: str, running: Gateway, how: Rotation | None = None) -> dict[str, str]:
        """Give a name another key and return it, once."""
        grace_s = how.grace if how else 0.0
        with _store(running) as store:
            key = store.rotate(name, now=time.time(), grace_s=grace_s)
        return {"name": name, "key": key}

    @routes.post("/{name:path}/revoke")
    def revoke(name: str, running: Gateway) -> dict[str, str]:
        """End all keys of a name for good."""
        with _store(running, makes=False) as store:
            store.revoke(name, now=time.time())
        return {"name": name, "state": "revoked"}

    app.include_router(routes)
