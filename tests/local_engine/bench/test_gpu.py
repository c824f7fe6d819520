"""The bench of a GPU where there is none: its arithmetic, and that it says so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from local_engine.bench import gpu_rows
from local_engine.bench.gpu import main
from local_engine.bench.gpu_checks import TINY, answer_checks
from local_engine.bench.gpu_rows import (
    CASES,
    Machine,
    decode_rows,
    floor_s,
    measure_machine,
    model_rows,
    waiting_rows,
)
from local_engine.bench.random_model import bytes_read, random_model

CPU = torch.device("cpu")
MACHINE = Machine(CPU, 1e9, 1e12)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_rows, "STEPS", 4)
    monkeypatch.setattr(gpu_rows, "LOAD", 3)
    monkeypatch.setattr(gpu_rows, "ARRIVALS", 2)


def test_without_a_gpu_it_says_so_and_times_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json"])
    told = capsys.readouterr()

    assert status == 2
    assert "there is no GPU here" in told.err
    assert json.loads(told.out)["device"].startswith("no GPU")
    assert not any("roofline" in row["name"] for row in json.loads(told.out)["rows"])


def test_the_floor_is_the_slower_of_reading_and_multiplying() -> None:
    model = random_model(TINY, "none", CPU, torch.bfloat16)
    c = model.config
    layer = c.hidden * (c.q_size + 2 * c.kv_size) + c.q_size * c.hidden + 3 * c.hidden * 256
    weights = 2 * (3 * layer + c.vocab * c.hidden)

    assert bytes_read(model, 0, 1) == weights
    assert bytes_read(model, 10, 4) == weights + 4 * 10 * 2 * 2 * 3 * c.kv_size
    assert floor_s(model, 1, 0, MACHINE) == pytest.approx(weights / 1e9)
    slow = replace(MACHINE, flops=1e6)
    assert floor_s(model, 8, 0, slow) == pytest.approx(8 * weights / 1e6)


@pytest.mark.parametrize("scheme", ["none", "int8", "int4-g128"])
def test_a_case_gives_its_speed_and_its_share(scheme: str) -> None:
    case = replace(CASES[0], name="tiny", shape=TINY, scheme=scheme, batch=3, context=20)
    speed, share = decode_rows(case, random_model(TINY, case.scheme, CPU), MACHINE)

    assert speed.value > 0
    assert share.value > 0
    assert share.target == case.target


def test_arrivals_under_load_are_timed() -> None:
    median, worst = waiting_rows(random_model(TINY, "none", CPU))

    assert 0 < median.value <= worst.value
    assert (median.target, median.at_most) == (200, True)


def test_cases_for_which_there_is_no_time_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple(replace(case, shape=TINY, batch=1, context=8) for case in CASES)
    monkeypatch.setattr(gpu_rows, "CASES", small)
    left = iter([True, True, False])
    rows = list(model_rows(MACHINE, lambda: next(left)))

    assert [row.name for row in rows if "roofline" in row.name] == [
        f"{case.name}: share of the roofline" for case in CASES[:2]
    ]


def test_a_machine_is_measured() -> None:
    machine = measure_machine(CPU, nbytes=1 << 16, side=16)

    assert machine.bandwidth > 0
    assert machine.flops > 0


def test_answers_of_two_devices_are_compared_token_by_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (row,) = answer_checks(CPU)
    assert row.is_met
    from local_engine.bench import gpu_checks

    seen = iter([[[1, 2], [3]] * 3, [[1, 2], [4]] * 3])
    monkeypatch.setattr(gpu_checks, "_answers", lambda model: next(seen))
    (other,) = answer_checks(CPU)

    assert other.value == 3
    assert other.is_met is False
