from __future__ import annotations

import pytest

from gateway.access.keys import ANONYMOUS, KeyRing
from gateway.errors import Forbidden, InvalidRequest, Unauthenticated
from policies.schema import Access

KEYED = Access.model_validate(
    {
        "keys": [
            {"name": "ci", "tenant": "platform", "key": "sk-prefix-one"},
            {"name": "app", "tenant": "shop", "key": "sk-prefix-two", "scopes": ["auto"]},
        ]
    }
)
OPEN = Access(anonymous="loopback")
HOST = b"127.0.0.1:4000"


def test_a_known_key_names_its_caller() -> None:
    caller = KeyRing(KEYED).identify(b"Bearer sk-prefix-one", "10.0.0.9", b"gateway.example")

    assert (caller.key, caller.tenant) == ("ci", "platform")


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Bearer", b"Bearer ", b"Basic sk-prefix-one", b"Bearer sk-prefix-",
     b"sk-prefix-one", b"Bearer SK-PREFIX-ONE", b"Bearer sk-prefix-one\x00", b"Bearer ' OR 1=1 --",
     b"Bearer " + b"x" * 10_000],
)  # fmt: skip
def test_anything_but_a_whole_known_key_is_unauthenticated(authorization: bytes | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        KeyRing(KEYED).identify(authorization, "127.0.0.1", HOST)

    assert "sk-" not in caught.value.message


def test_a_key_with_scopes_may_use_nothing_else() -> None:
    caller = KeyRing(KEYED).identify(b"Bearer sk-prefix-two", "10.0.0.9", HOST)
    caller.require("auto")

    with pytest.raises(Forbidden, match="large"):
        caller.require("large")


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", None])
def test_loopback_may_be_anonymous_where_the_policy_says_so(client: str | None) -> None:
    assert KeyRing(OPEN).identify(None, client, HOST) is ANONYMOUS
    assert KeyRing(OPEN).identify(b"Bearer any", client, HOST) is ANONYMOUS


@pytest.mark.parametrize("client", ["10.0.0.9", "192.168.1.1", "::ffff:10.0.0.1", "nonsense"])
def test_nobody_else_may_be_anonymous(client: str) -> None:
    with pytest.raises(Unauthenticated):
        KeyRing(OPEN).identify(None, client, HOST)


def test_by_default_nobody_is_anonymous() -> None:
    with pytest.raises(Unauthenticated):
        KeyRing(Access()).identify(None, "127.0.0.1", HOST)


def test_a_wrong_key_is_refused_on_loopback_too_once_there_are_keys() -> None:
    both = KEYED.model_copy(update={"anonymous": "loopback"})

    assert KeyRing(both).identify(None, "127.0.0.1", HOST) is ANONYMOUS
    with pytest.raises(Unauthenticated):
        KeyRing(both).identify(b"Bearer wrong", "127.0.0.1", HOST)


@pytest.mark.parametrize("host", [b"attacker.example", b"127.0.0.1.attacker.example", b"x/?#"])
def test_a_rebound_name_opens_nothing_to_the_anonymous(host: bytes) -> None:
    with pytest.raises(InvalidRequest, match="Host"):
        KeyRing(OPEN).identify(None, "127.0.0.1", host)


@pytest.mark.parametrize("host", [b"localhost:4000", b"[::1]:4000", b"127.0.0.1", b"a.localhost"])
def test_names_of_this_machine_are_accepted(host: bytes) -> None:
    assert KeyRing(OPEN).identify(None, "127.0.0.1", host) is ANONYMOUS
