"""The page of the router's tables: what was found is shown, what was not is named."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from bench.router.everything import jobs, main
from bench.router.page import PAGE, page_of
from bench.router.pairs import Row
from router.metrics import Interval


@pytest.fixture
def results(tmp_path):
    some = Interval(0.5, 0.4, 0.6)
    rows = [
        Row("mmlu", way, 200, "fold", some, some, 0.3, 0.6, (0.5, 0.5), 1.0)
        for way in ("TF-IDF logistic", "ours", "oracle")
    ]
    area = {"way": "ours", "aiq": asdict(some), "behind": asdict(some)}
    pool = {
        "pool": "zeroeval", "told": "six models", "plot": "<svg/>", "areas": [area],
        "rows": [{"way": "ours", "asked": 0.95, "quality": asdict(some), "cost": asdict(some)}],
    }  # fmt: skip
    for name, found in (
        ("pairs-mmlu-200", [asdict(row) for row in rows]),
        ("pairs-mmlu-1500", [asdict(row) for row in rows]),
        ("pool-zeroeval", pool),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    return tmp_path


def test_page_shows_what_was_found_and_names_what_was_not(results):
    pages = page_of(results, jobs())

    assert "| ours | 0.500 [0.400, 0.600] | 0.500 [0.400, 0.600] |" in pages[PAGE]
    assert "six models" in pages[PAGE]
    assert "## Not run yet\n\n`pairs-mmlu-all`" in pages[PAGE]
    assert {"images/labels-mmlu.svg", "images/pool-zeroeval.svg"} < set(pages)


def test_page_is_written_without_running_anything(results, tmp_path, capsys):
    docs = tmp_path / "docs"
    status = main(["--data", "nowhere", "--results", str(results), "--docs", str(docs), "--write"])

    assert status == 0
    assert (docs / "images" / "pool-zeroeval.svg").read_text() == "<svg/>"
    assert str(docs / PAGE) in capsys.readouterr().out


def test_a_job_that_fails_leaves_no_result_and_is_named(tmp_path, capsys):
    asked = ["--data", str(tmp_path / "none"), "--results", str(tmp_path), "--docs", str(tmp_path)]
    status = main([*asked, "--only", "pairs-gsm8k-0"])

    assert status == 1
    assert "pairs-gsm8k-0 failed" in capsys.readouterr().err
    assert not (tmp_path / "pairs-gsm8k-0.json").exists()
    assert "Traceback" in (tmp_path / "pairs-gsm8k-0.log").read_text()
