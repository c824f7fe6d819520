"""A policy's text is shown without its secrets, and comes back with them, each where it stood."""

from __future__ import annotations

import pytest

from gateway.changes.masking import masked_text, unmasked_text
from policies.problems import PolicyError

TEXT = """\
version: 1  # a remark
access:
  keys:
    - {name: one, key: sk-first-secret}
    - name: two
      key: 'sk-second #secret'
    - {name: three, key: "${THIRD}"}
models:
  large:
    provider: openai
    base_url: https://api.example/v1
    api_key: "${PREFIX}sk-tail"
storage: {ledger: "postgresql://me:word@db/frugal", redis: redis://plain/0}
routes:
  auto: {model: large, rules: [{when: {key: one}, model: large}]}
"""
ENV = {"THIRD": "sk-third-secret", "PREFIX": "p-"}
SECRETS = ("sk-first-secret", "sk-second", "sk-tail", "me:word", "sk-third")


def _masked(text=TEXT):
    return masked_text(text, "policy.yaml", ENV)


def _unmasked(text, current=TEXT):
    return unmasked_text(text, current, "policy.yaml", ENV)


def test_no_secret_is_shown_and_everything_else_is():
    shown = _masked()

    assert [secret for secret in SECRETS if secret in shown] == []
    assert "# a remark" in shown
    assert '"${THIRD}"' in shown
    assert "redis://plain/0" in shown
    assert "when: {key: one}" in shown


def test_what_was_masked_comes_back_to_the_letter():
    assert _unmasked(_masked()) == TEXT


def test_an_edit_beside_a_mask_keeps_it():
    edited = _masked().replace("name: one", "name: uno").replace("{when: {key: one}", "{when: {}")

    assert "{name: uno, key: sk-first-secret}" in _unmasked(edited)


def test_keys_may_change_places_within_their_list():
    lines = _masked().splitlines(keepends=True)
    lines.insert(5, lines.pop(3))
    lines[3:5], lines[5:6] = [lines[3], lines[4]], [lines[5]]
    text = "".join(lines)

    assert "sk-first-secret" in _unmasked(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: two", 'name: "***1***"'),
        ("provider: openai", 'provider: openai\n    model: "***3***"'),
        ('api_key: "***3***"', 'api_key: "***1***"'),
        ("version: 1", 'version: 1\n# "***9***"'),
    ],
)
def test_a_mask_that_was_moved_is_refused_with_its_place(old, new):
    with pytest.raises(PolicyError) as caught:
        _unmasked(_masked().replace(old, new))

    assert not any(secret in str(caught.value) for secret in SECRETS)
