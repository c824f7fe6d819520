"""Every family and rotary scaling gives transformers' own greedy tokens, however it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench import engine_matrix
from bench.engine_families import FAMILIES, write_family
from bench.engine_matrix import WAYS, Subject, by_engine, by_transformers
from local_engine.loader import LoadOptions, load_model
from local_engine.types import EngineLimits
from tests.local_engine.conftest import CPU
from tests.local_engine.support import prompt_of

COUNT = 12


@pytest.mark.parametrize("name", FAMILIES)
async def test_greedy_tokens_equal_transformers_in_every_way_of_running(
    name: str, tmp_path: Path
) -> None:
    write_family(name, tmp_path)
    subject = Subject.of(tmp_path, COUNT)
    cells = {way: await subject.cell(way) for way in WAYS}

    assert all(cell.is_equal for cell in cells.values()), cells
    # Where every layer slides, old pages come back early enough for all; so short an
    # answer may repeat nothing.
    idle = {way for way, cell in cells.items() if not cell.was_tried}
    assert idle <= {"guesses"} | ({"preempted"} if all(subject.model.config.windows) else set())
    assert (
        len({t for tokens in subject.wanted for t in tokens}) > COUNT // 2
    )  # the model says something


async def test_long_context_uses_the_other_frequencies_from_the_first_token(
    tmp_path: Path,
) -> None:
    write_family("rope-longrope", tmp_path)
    short = load_model(tmp_path, CPU)
    long = load_model(tmp_path, LoadOptions(device=CPU.device, is_long=True))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompt = prompt_of(5, 200)

    assert (short.config.context, long.config.context) == (128, 512)
    found, _ = await by_engine(long, EngineLimits(max_batch=1), COUNT, [prompt])
    assert found == [by_transformers(theirs, prompt, COUNT)]


def test_a_difference_shows_in_the_table_and_in_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_matrix, "by_transformers", lambda *_: [0] * 3)
    status = engine_matrix.main(["--only", "llama-2", "--tokens", "3"])

    assert status == 1
    assert capsys.readouterr().out.splitlines()[-1].count("DIFFERS") == len(WAYS)
