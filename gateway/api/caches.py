"""What the caches hold and how often they helped, and how to make them forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cache.fingerprint import fingerprint
from cache.scope import Scope
from cache.types import StoreFailed
from gateway.access.keys import Caller
from gateway.errors import GatewayError, InvalidRequest
from gateway.request import ChatRequest, parse_chat
from gateway.sharing import place_of

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.caches import Caches


class CacheNotShared(GatewayError):
    """Other workers keep answers that this one cannot reach."""

    status = 409
    type = "invalid_request_error"
    default_code = "cache_not_shared"


Text = Annotated[str, Field(min_length=1, max_length=256)]


class Invalidation(BaseModel):
    """Which answers to forget: those for which all that is given holds.

    `request` is a chat completion's body, and needs the tenant that sent it;
    `key` is what a dry run by `request` returns. `before` is in seconds since
    the epoch. To forget everything, say so: `everything: true`.
    """

    model_config = ConfigDict(extra="forbid")

    tenant: Text | None = None
    corpus: Text | None = None
    route: Text | None = None
    model: Text | None = None
    tag: Text | None = None
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    request: dict[str, Any] | None = None
    before: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    everything: Literal[True] | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _names_something(self) -> Invalidation:
        named = self.model_dump(exclude_none=True, exclude={"dry_run", "everything"})
        if bool(named) == bool(self.everything):
            names = "tenant, corpus, route, model, tag, key, request, before"
            raise ValueError(f"expected one or more of {names}, or everything: true alone")
        if self.request is not None and (self.key is not None or self.tenant is None):
            raise ValueError("expected the tenant beside the request, and no key")
        return self


def cache_routes(routes: APIRouter, running: Running) -> None:
    """Add `/cache` and `/cache/invalidate` to the admin's routes."""

    def caches() -> Caches:
        assert running.caches is not None, "the lifespan has not begun"
        return running.caches

    @routes.get("/cache")
    async def cache() -> dict[str, Any]:
        """Return what this process has counted and, with Redis, what all have."""
        near = running.near
        return {
            "workers": running.workers,
            **await caches().report(),
            "semantic": await near.report() if near else None,
        }

    @routes.post("/cache/invalidate")
    async def invalidate(asked: Invalidation) -> dict[str, Any]:
        """Forget answers, those of requests under way included; a dry run only counts them."""
        if running.workers > 1 and caches().shared is None:
            raise CacheNotShared(
                f"each of the {running.workers} workers keeps answers of its own, and only one "
                "was asked; set storage.redis, or serve with one worker"
            )
        found = _request_of(asked)
        scope = _scope(asked, found, running)
        done = await caches().invalidate(scope, dry_run=asked.dry_run)
        near, semantic, trouble = running.near, 0, done.trouble
        try:
            if near:
                semantic = await near.invalidate(scope, *found, dry_run=asked.dry_run)
        except StoreFailed as exc:
            trouble = trouble or str(exc)
        return {
            "dry_run": done.is_dry_run,
            "entries": done.found.entries if done.found else None,
            "bytes": done.found.bytes if done.found else None,
            "semantic_entries": semantic,
            "key": scope.key.hex() if scope.key else None,
            "pending": caches().pending,
            "trouble": trouble,
        }


def _request_of(asked: Invalidation) -> tuple[ChatRequest, Caller] | tuple[None, None]:
    """Return the request that is named by its body, and whose it is. Raises InvalidRequest."""
    if asked.request is None or asked.tenant is None:
        return None, None
    request = parse_chat(msgspec.json.encode(asked.request), {}, "admin")
    return request, Caller("", asked.tenant)


def _scope(
    asked: Invalidation,
    found: tuple[ChatRequest, Caller] | tuple[None, None],
    running: Running,
) -> Scope:
    tenant, key = asked.tenant, bytes.fromhex(asked.key) if asked.key is not None else None
    if found[0] is not None:
        key, is_shared = _key_of(*found, running)
        tenant = None if is_shared else tenant  # the key says all; another may have paid
    return Scope(tenant, asked.route, asked.model, asked.tag, key, asked.before, asked.corpus)


def _key_of(request: ChatRequest, caller: Caller, running: Running) -> tuple[bytes, bool]:
    """Return the fingerprint that a request has, and whether tenants share it.

    A key's own rules are not known here. Raises InvalidRequest.
    """
    policy, name = running.policy, request.model
    route = policy.route_for(name)
    if route is None:
        raise InvalidRequest(f"no route or model is called {name!r}", param="request")
    place = place_of(route, policy.revision(name), request.facts(caller))
    is_shared = place.corpus is not None
    tenant = "" if is_shared else caller.tenant
    key = fingerprint(tenant, name, place.revision, request.body, corpus=place.corpus)
    return key, is_shared
