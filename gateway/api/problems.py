"""FastAPI's errors in OpenAI's envelope."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound


def answer_in_envelopes(app: FastAPI) -> None:
    """Make every error of `app` one that OpenAI's clients can read."""

    @app.exception_handler(GatewayError)
    async def _ours(_: Request, exc: GatewayError) -> JSONResponse:
        waits = {"retry-after": exc.retry_after} if exc.retry_after else {}
        headers = {**waits, **exc.headers}
        return JSONResponse(exc.body(), status_code=exc.status, headers=headers)

    @app.exception_handler(HTTPException)
    async def _theirs(request: Request, exc: HTTPException) -> JSONResponse:
        headers = dict(exc.headers or {})
        return JSONResponse(
            _translated(request, exc).body(), status_code=exc.status_code, headers=headers
        )

    @app.exception_handler(Exception)
    async def _unforeseen(_: Request, exc: Exception) -> JSONResponse:
        # It is raised again behind our back, and so logged.
        return JSONResponse(GatewayError("the gateway failed; see its log").body(), 500)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        first = exc.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:])
        error = InvalidRequest(f"{where}: {first['msg']}", param=where or None)
        return JSONResponse(error.body(), status_code=error.status)


def _translated(request: Request, exc: HTTPException) -> GatewayError:
    path = request.scope["path"]  # never request.url, which a hostile Host header can bend
    if exc.status_code == 404:
        return NotFound(f"there is nothing at {path!r}")
    if exc.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not served at {path!r}")
    return GatewayError(str(exc.detail))
