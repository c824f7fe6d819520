"""What is taken out of a text before anybody is shown it, and what is left alone."""

from __future__ import annotations

import pytest

from gateway.reporting.redaction import redacted, redacted_all


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghij0123456789",
        "ghp_abcdefghijklmnop0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXBhcnQ",
        "Bearer abcdef0123456789abcdef",
        "ann.lee+x@mail.example.org",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "password: hunter2hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_are_taken_out_and_the_rest_stays(secret):
    told = redacted(f"before {secret} after")

    assert told.startswith("before ")
    assert told.endswith(" after")
    assert "taken out" in told
    assert secret.split()[-1] not in told or secret.startswith("DE89")


@pytest.mark.parametrize(
    "text", ["2026-11-21 18:00", "pi is 3.14159265358979", "1 + 1 = 2", "ask-me", "tokens: 5"]
)
def test_plain_words_and_numbers_are_left_alone(text):
    assert redacted(text) == text


def test_json_is_redacted_all_the_way_down():
    told = redacted_all([{"content": [{"text": "mail me at a@b.example"}], "n": 1}])

    assert told == [{"content": [{"text": "mail me at [email taken out]"}], "n": 1}]
