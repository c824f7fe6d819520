from __future__ import annotations

import pytest

from gateway.errors import GatewayError, ProviderRateLimited, ProviderRejected


def _all(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [root, *(found for child in root.__subclasses__() for found in _all(child))]


@pytest.mark.parametrize("kind", _all(GatewayError), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_an_envelope(kind: type[GatewayError]) -> None:
    error = kind("what to change", status=400) if kind is ProviderRejected else kind("what")  # type: ignore[call-arg]

    assert 400 <= error.status <= 599
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}


def test_a_copy_says_the_same_and_shares_no_traceback() -> None:
    try:
        raise ProviderRejected("too long", status=413, code="context_length_exceeded", param="x")
    except ProviderRejected as exc:
        first = exc

    copy = first.again()

    assert type(copy) is ProviderRejected
    assert (copy.status, copy.body(), str(copy)) == (413, first.body(), str(first))
    assert copy.__traceback__ is None


def test_a_copy_keeps_how_long_to_wait() -> None:
    assert ProviderRateLimited("slow down", retry_after="7").again().retry_after == "7"
