"""Errors that the Messages API puts where a reply should be."""

from __future__ import annotations

from gateway.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.providers.failures import Told, read_error

_KINDS: dict[str, type[ProviderError]] = {
    "overloaded_error": ProviderUnavailable,
    "api_error": ProviderUnavailable,
    "timeout_error": ProviderTimeout,
    "rate_limit_error": ProviderRateLimited,
}
_OURS = ("authentication_error", "billing_error", "permission_error")


def failure_within(body: bytes, model: str, secret: str | None) -> ProviderError | None:
    """Return what an error in place of a reply or event means; None where it is none."""
    told = read_error(body, secret)
    if told.type is None:
        return None
    said = f": {told.message}" if told.message else ""
    message = f"model {model}: the upstream answered {told.type}{said}"
    if told.type in _OURS:
        return ProviderError(message, code="upstream_credentials")
    if told.type in ("invalid_request_error", "request_too_large"):
        return _rejected(told, message)
    return _KINDS.get(told.type, ProviderProtocolError)(message)


def _rejected(told: Told, message: str) -> ProviderRejected:
    return ProviderRejected(told.message or message, status=400, type=told.type, code=told.code)
