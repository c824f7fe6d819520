"""The admin port's endpoints for the keys that clients send."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import Field

from gateway.access.key_store import Holder, KeyStore, KeyStoreError, keys_path, shown
from gateway.api.guests import named_admin
from gateway.errors import InvalidRequest
from policies.limits import Limits
from policies.scalars import Duration, DurationOrZero, Name
from policies.section import Section

if TYPE_CHECKING:
    from gateway.app import Running


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


def _store(request: Request) -> KeyStore:
    running: Running = request.app.state.running
    return KeyStore(keys_path(running.spool_url), os.environ)


Store = Annotated[KeyStore, Depends(_store)]


def keys_routes(app: FastAPI) -> None:
    """Add `/admin/keys`; each endpoint asks for an admin by name."""
    routes = APIRouter(prefix="/admin/keys", dependencies=[Depends(named_admin)])

    @routes.get("")
    def keys(store: Store) -> dict[str, Any]:
        """Return every key there is, without the key itself."""
        now = time.time()
        return {"data": [shown(kept, now) for kept in store.kept()] if store.exists else []}

    @routes.post("")
    def make(new: NewKey, store: Store) -> dict[str, str]:
        """Make a key and return it, once."""
        scopes, tags = frozenset(new.scopes), frozenset(new.tags)
        holder = Holder(new.name, new.tenant, scopes, tags, new.limits)
        now = time.time()
        end = None if new.expires is None else now + new.expires
        try:
            store.init()
            return {"name": new.name, "key": store.make(holder, now=now, expires_at=end)}
        except KeyStoreError as exc:
            raise InvalidRequest(str(exc), param="name") from exc

    @routes.post("/{name:path}/rotate")
    def rotate(name: str, store: Store, how: Rotation | None = None) -> dict[str, str]:
        """Give a name another key and return it, once."""
        grace_s = how.grace if how else 0.0
        try:
            return {"name": name, "key": store.rotate(name, now=time.time(), grace_s=grace_s)}
        except KeyStoreError as exc:
            raise InvalidRequest(str(exc), param="name") from exc

    @routes.post("/{name:path}/revoke")
    def revoke(name: str, store: Store) -> dict[str, str]:
        """End all keys of a name for good."""
        try:
            store.revoke(name, now=time.time())
        except KeyStoreError as exc:
            raise InvalidRequest(str(exc), param="name") from exc
        return {"name": name, "state": "revoked"}

    app.include_router(routes)
