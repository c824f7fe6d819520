"""Everything that can go wrong on a request's way, as the client will see it.

GatewayError                       status, type, code
├ InvalidRequest        400        ├ Unauthenticated        401
│ └ CeilingTooLow       400  no model is within x-frugal-max-usd
├ Forbidden             403        ├ UnknownModel           404
├ NotFound              404        ├ MethodNotAllowed       405
├ PayloadTooLarge       413        ├ LedgerUnavailable      503
├ RateLimited           429        ├ BudgetExceeded         429  `headers`
├ LimitsUnavailable     503        ├ NoModelAvailable       503
├ Overloaded            503
├ KeyReused             422        ├ ReadTooSlowly          408
├ SecretMismatch        409
└ ProviderError         502        `upstream_status`, `retry_after`, `word` for the path
  ├ ProviderTimeout     504        ├ ProviderUnavailable    503
  ├ ProviderRateLimited 429        ├ ProviderProtocolError  502  a broken or false answer
  ├ ModelLimited        429  a limit of ours on a model
  ├ ProviderRejected    their 4xx: not retried, not held against the breaker
  ├ ProviderBrokeOff    503        a kind of ProviderUnavailable: it may be billed
  └ CircuitOpen         503        another: not even asked
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class GatewayError(Exception):
    """An error with an HTTP status and an OpenAI-shaped body.

    `is_refusal` where the request was turned away before anything was done for
    it: such requests are counted, and are no lines of the ledger.
    """

    status: int = 500
    is_refusal: ClassVar[bool] = False
    type: str = "server_error"
    default_code: ClassVar[str | None] = None
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after

    def again(self) -> GatewayError:
        """Return a copy to raise elsewhere; one raised in several tasks would mix tracebacks."""
        copy = self.__class__.__new__(self.__class__)
        copy.args = self.args
        copy.__dict__.update(self.__dict__)
        return copy

    def body(self) -> dict[str, Any]:
        """Return the error envelope that OpenAI's clients read."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}


class InvalidRequest(GatewayError):
    """The request itself is wrong, and would be anywhere."""

    status = 400
    type = "invalid_request_error"


class CeilingTooLow(InvalidRequest):
    """Whatever could serve may cost more than the request is ready to pay."""

    is_refusal = True
    default_code = "max_usd_exceeded"


class Unauthenticated(GatewayError):
    """No key, or one that is not known."""

    status = 401
    is_refusal = True
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known but may not do this."""

    status = 403
    is_refusal = True
    type = "invalid_request_error"
    default_code = "not_allowed"


class UnknownModel(GatewayError):
    """Neither a route nor a model has this name."""

    status = 404
    is_refusal = True
    type = "invalid_request_error"
    default_code = "model_not_found"


class NotFound(GatewayError):
    """No such path."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(GatewayError):
    """The path exists, under another method."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class KeyReused(GatewayError):
    """An idempotency key was used for another request before."""

    status = 422
    is_refusal = True
    type = "invalid_request_error"
    default_code = "idempotency_key_reused"


class SecretMismatch(GatewayError):
    """A key made here would be known nowhere: the store's were hashed with another secret."""

    status = 409
    default_code = "keys_secret_mismatch"


class ReadTooSlowly(GatewayError):
    """Too much of an answer that others read, too, waited for this client to read it."""

    status = 408
    type = "invalid_request_error"
    default_code = "read_too_slowly"


class PayloadTooLarge(GatewayError):
    """The body passes the limit of the policy."""

    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class RateLimited(GatewayError):
    """More requests or tokens than a limit allows just now."""

    status = 429
    is_refusal = True
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class BudgetExceeded(GatewayError):
    """What the request may cost is more than a budget has left."""

    status = 429
    is_refusal = True
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class LimitsUnavailable(GatewayError):
    """Limits cannot be checked, and the policy does not let requests pass unchecked."""

    status = 503
    is_refusal = True
    default_code = "limits_unavailable"


class Overloaded(GatewayError):
    """The gateway lags behind, and takes no requests of this priority just now."""

    status = 503
    is_refusal = True
    default_code = "overloaded"


class LedgerUnavailable(GatewayError):
    """Work that cannot be recorded is not started."""

    status = 503
    is_refusal = True
    default_code = "ledger_unavailable"


class NoModelAvailable(GatewayError):
    """Every model that could serve has failed, or none is able to."""

    status = 503
    default_code = "no_model_available"


class ProviderError(GatewayError):
    """An upstream failed. `word` names the failure in `x-frugal-path` and the ledger.

    `may_be_billed` where the upstream was asked and may have worked, although nothing came of it;
    `has_alternative` where another deployment of the model has not been asked.
    """

    status = 502
    type = "upstream_error"
    default_code = "upstream_error"
    word: ClassVar[str] = "error"
    may_be_billed: bool = False
    has_alternative: bool = False


class ProviderTimeout(ProviderError):
    """An upstream was too slow to connect, to start, between tokens or in all."""

    status = 504
    default_code = "upstream_timeout"
    word = "timeout"
    may_be_billed = True


class ProviderUnavailable(ProviderError):
    """An upstream could not be reached, or answered 5xx."""

    status = 503
    default_code = "upstream_unavailable"
    word = "unavailable"


class ProviderBrokeOff(ProviderUnavailable):
    """An upstream was asked, and the connection ended before its answer did."""

    may_be_billed = True


class CircuitOpen(ProviderUnavailable):
    """A model was not asked, since it has failed too often of late."""

    default_code = "circuit_open"
    word = "circuit_open"


class ProviderRateLimited(ProviderError):
    """An upstream answered 429; its `retry-after` is kept."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    word = "rate_limited"


class ModelLimited(ProviderError):
    """A model's own limit in the policy is reached; the upstream was not asked."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    word = "limited"


class ProviderProtocolError(ProviderError):
    """An upstream answered something that is no answer: cut, garbled, or an error within a 200."""

    default_code = "upstream_protocol_error"
    word = "broken"
    may_be_billed = True


class ProviderRejected(ProviderError):
    """An upstream found fault with the request (4xx); status, type, code and param are its own."""

    type = "invalid_request_error"
    word = "rejected"

    def __init__(
        self, message: str, *, status: int, type: str | None = None, **details: Any
    ) -> None:
        super().__init__(message, **details)
        self.status = status
        if type is not None:
            self.type = type
