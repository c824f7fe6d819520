"""The public port beside the hot path: models and health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from gateway.access.keys import Caller
from gateway.errors import GatewayError, UnknownModel

if TYPE_CHECKING:
    from gateway.app import Running


class NotReady(GatewayError):
    """The gateway would refuse billable requests."""

    status = 503
    default_code = "not_ready"


def calling(request: Request) -> Caller:
    """Identify who sends `request`; every route but health depends on it.

    Raises Unauthenticated.
    """
    authorization = request.headers.get("authorization")
    running: Running = request.app.state.running
    return running.keys.identify(
        authorization.encode("latin-1") if authorization is not None else None,
        request.client.host if request.client else None,
        request.headers.get("host", "").encode("latin-1"),
    )


def public_routes(app: FastAPI, running: Running) -> None:
    """Add the public endpoints to `app`, with and without `/v1`."""
    models = APIRouter()

    @models.get("/models")
    def list_models(caller: Annotated[Caller, Depends(calling)]) -> dict[str, Any]:
        names = [*running.policy.routes, *running.policy.models]
        return {
            "object": "list",
            "data": [_described(name) for name in dict.fromkeys(names) if _may(caller, name)],
        }

    @models.get("/models/{name:path}")
    def one_model(name: str, caller: Annotated[Caller, Depends(calling)]) -> dict[str, Any]:
        if running.policy.route_for(name) is None or not _may(caller, name):
            raise UnknownModel(f"no route or model is called {name!r}", param="model")
        return _described(name)

    app.include_router(models)
    app.include_router(models, prefix="/v1")
    health_routes(app, running)


def health_routes(app: FastAPI, running: Running) -> None:
    """Add `/health/live` and `/health/ready`."""

    @app.get("/health/live")
    def live() -> Response:
        return Response('{"status":"ok"}', media_type="application/json")

    @app.get("/health/ready")
    def ready() -> Response:
        if not running.is_ready:
            raise NotReady("the ledger cannot be written; billable requests are refused")
        return Response('{"status":"ok"}', media_type="application/json")


def _may(caller: Caller, name: str) -> bool:
    return not caller.scopes or name in caller.scopes


def _described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "frugal-gateway"}
