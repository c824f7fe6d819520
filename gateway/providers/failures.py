"""From an upstream's refusal to the error that the client will see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.errors import (
    ProviderBrokeOff,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.upstream.types import Response

MAX_ERROR_BODY = 256 * 1024
_MAX_MESSAGE = 2000

# How servers that do not know OpenAI's code say that a prompt is too long.
_TOO_LONG = (
    "maximum context length",
    "exceed_context_size",
    "context length exceeded",
    "prompt is too long",
)


# Said by what stands between, of a server that may have gone on working.
_GAVE_UP = (502, 504, 520, 522, 524)


@dataclass(frozen=True, slots=True)
class Told:
    """What an upstream said of its error; empty for a body that is none of ours."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    param: str | None = None


async def failure_of(response: Response, model: str, secret: str | None) -> ProviderError:
    """Read an answer that is not a 200 and return what it means for this request."""
    status = response.status
    body = b"" if 300 <= status < 400 else await _body_of(response)
    told = read_error(body, secret)
    error = _error_of(status, model, told)
    error.retry_after = _retry_after(response) if status in (429, 503, 529) else None
    return error


def error_within(body: bytes, model: str, secret: str | None) -> ProviderProtocolError:
    """Return the failure of a reply or event that is an error although its status was 200."""
    told = read_error(body, secret)
    said = f": {told.message}" if told.message else ""
    return ProviderProtocolError(
        f"model {model}: the upstream put an error into its reply{said}",
        code=told.code,
        param=told.param,
    )


def read_error(body: bytes, secret: str | None) -> Told:
    """Return what a JSON error body tells, in the dialects of OpenAI, vLLM, FastAPI and Ollama.

    Anything else, HTML above all, tells nothing. A planted key is masked.
    """
    try:
        payload = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Told()
    if not isinstance(payload, dict):
        return Told()
    error = payload.get("error") or payload
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return Told()
    message = _text(error.get("message")) or _text(error.get("detail")) or ""
    if secret:
        message = message.replace(secret, "***")
    return Told(
        _printable(message),
        _text(error.get("type")),
        _code(error, message),
        _text(error.get("param")),
    )


async def _body_of(response: Response) -> bytes:
    try:
        return await response.read(MAX_ERROR_BODY)
    except ProviderError:
        return b""  # the status says enough


def _error_of(status: int, model: str, told: Told) -> ProviderError:
    if status == 429:
        return _rate_limited(model, told)
    if status in (401, 402, 403, 407):
        return ProviderError(
            f"model {model}: the upstream refused the gateway's credentials ({status}); "
            f"check models.{model}.api_key",
            code="upstream_credentials",
        )
    if status == 408:
        return ProviderTimeout(f"model {model}: the upstream gave up waiting (408)")
    if 400 <= status < 500:
        return _rejected(status, model, told)
    if status in _GAVE_UP:
        return ProviderBrokeOff(f"model {model}: the upstream answered {status}")
    if status >= 500:
        return ProviderUnavailable(f"model {model}: the upstream answered {status}")
    if 300 <= status < 400:
        return ProviderProtocolError(
            f"model {model}: the upstream answered {status}; redirects are not followed, "
            f"so models.{model}.base_url must be the final address"
        )
    return ProviderProtocolError(f"model {model}: expected status 200, found {status}")


def _rate_limited(model: str, told: Told) -> ProviderRateLimited:
    return ProviderRateLimited(
        f"model {model}: the upstream's limit is reached (429)", code=told.code
    )


def _rejected(status: int, model: str, told: Told) -> ProviderError:
    if "credit balance is too low" in told.message:  # Anthropic says so with a 400
        return ProviderError(
            f"model {model}: the upstream's account has no credit left; see models.{model}.api_key",
            code="upstream_credentials",
        )
    if not told.message and status in (404, 405):
        return ProviderError(
            f"model {model}: nothing answers chat completions there ({status}); "
            f"check models.{model}.base_url"
        )
    message = told.message or f"model {model}: the upstream refused the request ({status})"
    return ProviderRejected(
        message, status=status, type=told.type, code=told.code, param=told.param
    )


def _retry_after(response: Response) -> str | None:
    """Return seconds or a date as the upstream gave them, or its milliseconds as seconds."""
    value = response.header("retry-after")
    if value is not None and len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    millis = response.header("retry-after-ms")
    if millis is not None and millis.isdecimal() and len(millis) <= 10:
        return str(math.ceil(int(millis) / 1000))
    return None


def _code(error: dict[str, Any], message: str) -> str | None:
    code = _text(error.get("code"))
    said = f"{error.get('type')} {message}".lower()
    if code is None and any(phrase in said for phrase in _TOO_LONG):
        return "context_length_exceeded"
    return code


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _printable(message: str) -> str:
    """Return one line of bounded length: it ends up in logs and events."""
    line = " ".join(message.split())
    kept = "".join(c for c in line if c.isprintable())
    return kept if len(kept) <= _MAX_MESSAGE else kept[:_MAX_MESSAGE] + "…"
