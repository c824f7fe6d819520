from __future__ import annotations

import pytest

from gateway.errors import (
    CircuitOpen,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.resilience.retry import is_worth_another_try, seconds_in, wait_before
from policies.resilience import RetryRules

RULES = RetryRules(attempts=3, base=1.0, max_wait=10.0)
WALL = 784_887_151.0  # Tue, 15 Nov 1994 08:12:31 GMT


def _wait(exc: ProviderError, *, failed: int = 1, draw: float = 0.5) -> float | None:
    return wait_before(RULES, exc, failed=failed, wall=WALL, draw=lambda: draw)


@pytest.mark.parametrize(
    ("exc", "is_worth"),
    [
        (ProviderUnavailable("x"), True),
        (ProviderTimeout("x"), True),
        (ProviderProtocolError("x"), True),
        (ProviderRateLimited("x"), True),
        (ProviderRateLimited("x", code="insufficient_quota"), False),
        (ProviderRejected("x", status=400), False),
        (ProviderError("x", code="upstream_credentials"), False),
        (CircuitOpen("x"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(exc: ProviderError, is_worth: bool) -> None:
    assert is_worth_another_try(exc) is is_worth
    assert (_wait(exc) is not None) is is_worth


def test_the_last_attempt_is_the_last() -> None:
    waits = [_wait(ProviderUnavailable("x"), failed=n) for n in (1, 2, 3)]

    assert waits == [0.5, 1.0, None]


def test_the_wait_is_jittered_from_nothing_to_twice_as_much_each_time() -> None:
    exc = ProviderUnavailable("x")

    assert _wait(exc, draw=0.0) == 0.0
    assert _wait(exc, failed=2, draw=0.999) == pytest.approx(1.998)


def test_what_the_upstream_asks_for_is_the_least_wait() -> None:
    assert _wait(ProviderRateLimited("x", retry_after="4"), draw=0.25) == 4.25
    assert _wait(ProviderUnavailable("x", retry_after="2.5"), draw=0.0) == 2.5
    date = "Tue, 15 Nov 1994 08:12:34 GMT"
    assert _wait(ProviderUnavailable("x", retry_after=date), draw=0.5) == 3.5


def test_an_upstream_that_wants_too_long_a_wait_is_not_asked_again() -> None:
    assert _wait(ProviderRateLimited("x", retry_after="11")) is None


def test_another_deployment_need_not_wait_for_the_first() -> None:
    exc = ProviderRateLimited("x", retry_after="60")
    exc.has_alternative = True

    assert _wait(exc) == 0.0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, 0.0),
        ("13", 13.0),
        ("-3", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("Tue, 15 Nov 1994 08:12:31 -0000", 0.0),
        ("Tue, 15 Nov 1994 08:13:31 GMT", 60.0),
        ("Tue, 15 Nov 1994 08:11:31 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str | None, seconds: float) -> None:
    assert seconds_in(said, WALL) == seconds
