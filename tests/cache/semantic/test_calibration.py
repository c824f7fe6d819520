from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.semantic.calibration import (
    CalibrationInvalid,
    default_calibration,
    encode,
    read_calibration,
)
from cache.semantic.calibration_bounds import lower_bound, upper_bound


def test_calibration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(encode(default_calibration()))

    assert read_calibration(path) == default_calibration()


def test_calibration_of_other_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    whole = msgspec.json.decode(encode(default_calibration()))
    path.write_bytes(msgspec.json.encode({**whole, "features": ["similarity"]}))

    with pytest.raises(CalibrationInvalid, match="fit it again"):
        read_calibration(path)


def test_broken_calibration_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("{")

    with pytest.raises(CalibrationInvalid, match=r"calibration\.json"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("counted", "bound"), [(29, 0.1), (59, 0.05), (149, 0.02), (299, 0.01), (598, 0.005)]
)
def test_fewest_audits_without_an_error_certify_a_share(counted: int, bound: float) -> None:
    assert upper_bound(0, counted, 0.95) <= bound < upper_bound(0, counted - 1, 0.95)


def test_bounds_agree_with_published_intervals() -> None:
    # 95 % two-sided, Clopper and Pearson: 1 of 10, 5 of 10.
    assert lower_bound(1, 10, 0.975) == pytest.approx(0.00253, abs=1e-5)
    assert upper_bound(1, 10, 0.975) == pytest.approx(0.44502, abs=1e-5)
    assert lower_bound(5, 10, 0.975) == pytest.approx(0.18709, abs=1e-5)
    assert upper_bound(5, 10, 0.975) == pytest.approx(0.81291, abs=1e-5)


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.5, 0.999))
def test_bounds_hold_the_counted_share(wrong: int, right: int, certainty: float) -> None:
    counted = wrong + right
    share = wrong / counted if counted else 0.0

    assert 0 <= lower_bound(wrong, counted, certainty) <= share + 1e-9
    assert share - 1e-9 <= upper_bound(wrong, counted, certainty) <= 1


@given(st.integers(0, 50), st.integers(1, 300))
def test_bounds_rise_with_every_wrong_one(wrong: int, right: int) -> None:
    counted = wrong + right

    assert upper_bound(wrong, counted, 0.9) <= upper_bound(wrong + 1, counted + 1, 0.9) + 1e-9
    assert lower_bound(wrong, counted, 0.9) <= lower_bound(wrong + 1, counted + 1, 0.9) + 1e-9
