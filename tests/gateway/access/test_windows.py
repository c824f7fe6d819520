from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.windows import ALL_TIME, window_at

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe")


def _at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("period", "zone", "at", "start", "end"),
    [
        ("hour", "UTC", "2026-11-20T21:34", "2026-11-20T21:00", "2026-11-20T22:00"),
        ("hour", "Asia/Kathmandu", "2026-11-20T21:34", "2026-11-20T21:00", "2026-11-20T22:00"),
        ("day", "UTC", "2026-11-20T00:00", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("day", "America/New_York", "2026-11-20T23:59", "2026-11-20T00:00", "2026-11-21T00:00"),
        ("month", "UTC", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "Europe/Berlin", "2026-10-31T12:00", "2026-10-01T00:00", "2026-11-01T00:00"),
    ],
)
def test_a_window_is_that_of_the_calendar_in_its_zone(period, zone, at, start, end):
    window = window_at(period, zone, _at(at, zone))

    assert (window.start, window.end) == (_at(start, zone), _at(end, zone))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(day, hours):
    window = window_at("day", "Europe/Berlin", _at(f"{day}T12:00", "Europe/Berlin"))

    assert window.end - window.start == hours * 3600


def test_a_total_has_one_window():
    assert window_at("total", "UTC", 1.0) is window_at("total", "UTC", 4e9) is ALL_TIME


@given(
    st.sampled_from(["hour", "day", "month"]),
    st.sampled_from(ZONES),
    st.floats(1.6e9, 2.5e9),
)
def test_every_moment_is_within_its_window_and_windows_do_not_overlap(period, zone, at):
    window = window_at(period, zone, at)

    assert window.start <= at < window.end
    assert window_at(period, zone, window.start).name == window.name
    assert window_at(period, zone, window.end).start == window.end
