"""Who may use the admin port: an admin, a reader, or a browser that one of them logged in with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.keys import ANONYMOUS, Caller, is_loopback_host
from gateway.access.sessions import LASTS_S
from gateway.errors import Forbidden, GatewayError, InvalidRequest, RateLimited, Unauthenticated

if TYPE_CHECKING:
    from gateway.access.sessions import Session
    from gateway.app import Running

COOKIE = "frugal_session"
CSRF = "x-csrf-token"
_SAFE = ("GET", "HEAD", "OPTIONS")


class Login(BaseModel):
    """A key to log in with."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=1, max_length=512)]


class WhoAmI(BaseModel):
    """Who is asking: `can_change` is False for a key that may only read.

    `csrf` goes into the header `x-csrf-token` of whatever changes something; null where no
    cookie was used. `can_manage` is False for who came without a key.
    """

    key: str
    tenant: str
    scopes: list[str]
    can_change: bool
    can_manage: bool
    is_anonymous: bool
    csrf: str | None
    expires_at: float | None


class LoggedOut(BaseModel):
    """The browser is forgotten."""

    logged_out: Literal[True] = True


def check_host(request: Request) -> None:
    """Turn a name away that was rebound to this machine. Raises InvalidRequest."""
    server = request.app.state.running.policy.server
    allowed = {server.admin_host, *server.allowed_hosts}
    host = request.headers.get("host", "")
    if not is_loopback_host(host.encode("latin-1")) and host.partition(":")[0] not in allowed:
        raise InvalidRequest(f"the Host header {host!r} is not one of server.allowed_hosts")


def admin(request: Request) -> Caller:
    """Let an admin in, or loopback where the policy opens it. Raises Forbidden, InvalidRequest."""
    caller = _guest(request)
    if caller is not ANONYMOUS and not caller.is_admin:
        raise Forbidden("the admin port needs a key with the scope 'admin'")
    return caller


def reader(request: Request) -> Caller:
    """Let an admin in, or a key that may read. Raises Forbidden, InvalidRequest."""
    caller = _guest(request)
    if caller is not ANONYMOUS and not caller.may_read:
        raise Forbidden("the admin port needs a key with the scope 'admin', or 'read' to look on")
    return caller


def guest(request: Request) -> Caller:
    """Let a reader look, and an admin change. Raises Forbidden, InvalidRequest."""
    return reader(request) if request.method in _SAFE else admin(request)


def named_admin(request: Request) -> Caller:
    """Let only an admin with a key in: not whatever else runs on this machine.

    Raises Forbidden, InvalidRequest.
    """
    caller = admin(request)
    if caller is ANONYMOUS:
        raise Forbidden("this is changed with an admin key; there is none on this request")
    return caller


def session_routes(app: FastAPI, running: Running) -> None:
    """Add `/admin/session`: log in, log out, who am I."""
    routes = APIRouter(prefix="/admin/session", tags=["session"])

    @routes.post("", dependencies=[Depends(check_host)])
    def log_in(login: Login, request: Request, response: Response) -> WhoAmI:
        """Take an admin's or a reader's key, and give a cookie for it. Wrong keys are limited."""
        _check_origin(request)
        client = request.client.host if request.client else "local"
        if wait_s := running.tries.wait_s(client):
            raise RateLimited(
                "too many wrong keys came from this address", retry_after=str(int(wait_s) + 1)
            )
        authorization = f"Bearer {login.key}".encode("utf-8", "replace")
        caller = running.keys.known(authorization)
        if caller is None or not caller.may_read:
            running.tries.failed(client)
        if caller is None:
            raise Unauthenticated("this API key is not known here")
        if not caller.may_read:
            raise Forbidden("expected a key with the scope 'admin' or 'read'")
        token, session = running.sessions.begin(authorization)
        response.set_cookie(COOKIE, token, max_age=int(LASTS_S), httponly=True, samesite="strict",
                            secure=_is_https(request), path="/")  # fmt: skip
        return _who(caller, session)

    @routes.get("", dependencies=[Depends(check_host)])
    def who_am_i(request: Request) -> WhoAmI:
        """Return who is asking and what they may do."""
        return _who(reader(request), _session(request))

    @routes.delete("", dependencies=[Depends(check_host)])
    def log_out(request: Request, response: Response) -> LoggedOut:
        """Forget this browser."""
        _check_origin(request)
        session = _session(request)
        if session is not None and session.is_from_us(request.headers.get(CSRF)):
            running.sessions.end(request.cookies.get(COOKIE))
        response.delete_cookie(COOKIE, path="/")
        return LoggedOut()

    app.include_router(routes)


def _guest(request: Request) -> Caller:
    """Identify who sends a request, by its key or its cookie. Raises GatewayError."""
    check_host(request)
    running: Running = request.app.state.running
    authorization = request.headers.get("authorization")
    told = authorization.encode("latin-1") if authorization is not None else None
    session = _session(request) if told is None else None
    if told is None:
        _check_origin(request)
    if session is not None:
        if request.method not in _SAFE and not session.is_from_us(request.headers.get(CSRF)):
            raise CsrfMissing(f"expected the session's token in the header {CSRF}")
        if (caller := running.keys.known(session.authorization)) is not None:
            return caller
    return running.keys.identify(
        told,
        request.client.host if request.client else None,
        request.headers.get("host", "").encode("latin-1"),
    )


class CsrfMissing(GatewayError):
    """A cookie came without the token that only our own pages can read."""

    status = 403
    type = "permission_error"
    default_code = "csrf_token_missing"


def _session(request: Request) -> Session | None:
    running: Running = request.app.state.running
    return running.sessions.find(request.cookies.get(COOKIE))


def _check_origin(request: Request) -> None:
    """Refuse what another site's page sends to change something. Raises Forbidden."""
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:  # an older browser, or no browser at all
        site = "same-origin" if _is_own(request, request.headers.get("origin")) else "cross-site"
    if site not in ("same-origin", "none"):
        raise Forbidden("a page of another site may not change anything here")


def _is_own(request: Request, origin: str | None) -> bool:
    """Return whether a page of that origin is ours: at this address, or at one that is allowed."""
    name = (origin or "").partition("://")[2]
    server = request.app.state.running.policy.server
    own = (request.headers.get("host", ""), *server.allowed_hosts)
    return origin is None or name in own or name.partition(":")[0] in server.allowed_hosts


def _is_https(request: Request) -> bool:
    # A header can only ask for more caution here, so it need not be trusted.
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))


def _who(caller: Caller, session: Session | None) -> WhoAmI:
    is_anonymous = caller is ANONYMOUS
    return WhoAmI(
        key=caller.key,
        tenant=caller.tenant,
        scopes=sorted(caller.scopes),
        can_change=is_anonymous or caller.is_admin,
        can_manage=caller.is_admin and not is_anonymous,
        is_anonymous=is_anonymous,
        csrf=session.csrf if session else None,
        expires_at=session.ends_at if session else None,
    )
