from __future__ import annotations

import pytest

from tests.policies.support import SMALL, load, told


def _keys(*keys):
    return SMALL + "access:\n  keys:\n" + "\n".join(f"    - {{{key}}}" for key in keys)


def test_keys_with_their_own_names_and_secrets_are_accepted():
    keys = load(_keys("name: a, key: k1, scopes: [admin, tiny]", "name: b, key: k2")).access.keys

    assert [key.key.get_secret_value() for key in keys] == ["k1", "k2"]


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (["name: a, key: k1", "name: a, key: k2"], "access.keys[1].name: another key is named 'a'"),
        (["name: a, key: k1", "name: b, key: k1"], "access.keys[1].key: this key stands above"),
        (["name: a, key: ''"], "access.keys[0].key: expected visible ASCII characters"),
        (["name: a, key: 'k 1'"], "access.keys[0].key: expected visible ASCII characters"),
        (["name: a, key: schlüssel"], "access.keys[0].key: expected visible ASCII characters"),
        (["name: a, key: k1, scopes: [admn]"], "scopes[0]: no route is named 'admn' (did you mean"),
    ],
)
def test_keys_that_could_not_be_told_apart_or_sent_are_refused(keys, fault):
    (line,) = told(_keys(*keys))

    assert fault in line


def test_a_key_used_twice_is_found_behind_its_references():
    text = _keys("name: a, key: '${A}'", "name: b, key: '${B}'")

    (line,) = told(text, {"A": "same-secret", "B": "same-secret"})

    assert "access.keys[1].key: this key stands above already" in line
    assert "same-secret" not in line


@pytest.mark.parametrize(
    ("server", "is_fine"),
    [
        ("{port: 4001}", False),
        ("{port: 5000, admin_port: 5000}", False),
        ("{port: 0, admin_port: 0}", True),
        ("{port: 4001, admin_host: 10.0.0.1}", True),
    ],
)
def test_public_and_admin_port_differ(server, is_fine):
    assert (told(SMALL + f"server: {server}") == []) is is_fine
