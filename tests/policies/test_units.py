from __future__ import annotations

import pytest

from policies.units import not_a_bool, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("2s", 2.0), ("1.5m", 90.0), ("24h", 86400.0), ("7d", 604800.0)],
)
def test_duration_is_read_in_its_unit(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [3, 0.5, "3", "0.5", None])
def test_plain_numbers_are_left_for_the_schema(value):
    assert parse_duration(value) == value
    assert parse_bytes(value) == value


@pytest.mark.parametrize("text", ["", "2 weeks", "-2s", "s", "1:30", "٣s"])
def test_other_text_is_no_duration(text):
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("10B", 10), ("10KB", 10_000), ("2MiB", 2 * 1024**2), ("1 GB", 10**9)]
)
def test_size_is_read_in_its_unit(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["10kb", "1.5MB", "MB", "10 XB"])
def test_other_text_is_no_size(text):
    with pytest.raises(ValueError, match="expected a size such as"):
        parse_bytes(text)


@pytest.mark.parametrize("parse", [parse_bytes, parse_duration, not_a_bool])
def test_true_is_no_number(parse):
    with pytest.raises(ValueError, match="expected a number, found true"):
        parse(True)
