"""`/dashboard`: the pages as files of their own, cached by what is in them.

Every link in them is relative, so that they work behind any path prefix. The
scripts lie below a folder named by the digest of them all: they may import each
other by name and still be kept for good.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from gateway.api.guests import check_host
from gateway.errors import NotFound

VIEWS = ("overview", "spend", "quality", "requests", "policy", "providers")
"""Pages by their path; the empty one is the overview."""

_FOLDER = Path(__file__).parents[1] / "dashboard"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No string can become markup or code, not even by a mistake of ours.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
        "report-uri ../admin/csp",
    )
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_PAGE_HEADERS = {
    **_HEADERS,
    "content-security-policy": _CONTENT_POLICY,
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache",
}
_FOR_GOOD = {**_HEADERS, "cache-control": "public, max-age=31536000, immutable"}


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent."""

    content: bytes
    packed: bytes
    media_type: str

    def response(self, request: Request, headers: Mapping[str, str]) -> Response:
        """Return it, packed for whoever says that it may be."""
        told = {**headers, "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            told["content-encoding"] = "gzip"
            return Response(self.packed, media_type=self.media_type, headers=told)
        return Response(self.content, media_type=self.media_type, headers=told)


@dataclass(frozen=True, slots=True)
class _Pages:
    """The page that all views share, the files it names, and the digest of them all."""

    page: _File
    assets: Mapping[str, _File]
    digest: str


@cache
def _pages() -> _Pages:
    """Read the files once, at the first request."""
    found = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _TYPES)
    contents = {path.relative_to(_FOLDER).as_posix(): path.read_bytes() for path in found}
    html = (_FOLDER / "index.html").read_bytes()
    digest = sha256(html + b"".join(n.encode() + c for n, c in contents.items())).hexdigest()[:16]
    assets = {n: _file(c, _TYPES[Path(n).suffix]) for n, c in contents.items()}
    page = html.replace(b"{{assets}}", f"assets/{digest}".encode())
    return _Pages(_file(page, "text/html; charset=utf-8"), assets, digest)


def _file(content: bytes, media_type: str) -> _File:
    return _File(content, gzip.compress(content, mtime=0), media_type)


def dashboard_routes(app: FastAPI) -> None:
    """Add `/dashboard`. The pages hold nothing secret; what they show asks for a key."""
    checked = [Depends(check_host)]

    @app.get("/dashboard", include_in_schema=False, dependencies=checked)
    def beginning() -> Response:
        return RedirectResponse("dashboard/", headers=_HEADERS)  # relative: there may be a prefix

    @app.get("/dashboard/", include_in_schema=False, dependencies=checked)
    @app.get("/dashboard/{view}", include_in_schema=False, dependencies=checked)
    def page(request: Request, view: str = "") -> Response:
        if view and view not in VIEWS:
            raise NotFound(f"the dashboard has no page {view!r}; it has: {', '.join(VIEWS)}")
        return _pages().page.response(request, _PAGE_HEADERS)

    @app.get(
        "/dashboard/assets/{digest}/{name:path}", include_in_schema=False, dependencies=checked
    )
    def asset(digest: str, name: str, request: Request) -> Response:
        pages = _pages()
        file = pages.assets.get(name)
        if file is None or digest != pages.digest:
            raise NotFound("the dashboard has no such file; load its page again")
        return file.response(request, _FOR_GOOD)
