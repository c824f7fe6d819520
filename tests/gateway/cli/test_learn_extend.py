"""`frugal train --extend`: a model joins a bundle, as an operator would let it."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from router.bundled import load_learnt
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, DEAR, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sums import MINI, PRICES, outcomes, probes, write_prices, write_rows


def frugal(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def extended(place, out, *arguments, model=MINI, outcomes=None):
    given = ("--outcomes", outcomes or place / "probes.jsonl", "--prices", place / "prices.json")
    return frugal(
        "train", "--extend", place / "bundle", "--model", model, "--out", out, *given, *arguments
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("extend")
    write_rows(place / "train.jsonl", outcomes(160, seed=1))
    write_rows(place / "probes.jsonl", probes(120, seed=5))
    write_prices(place / "prices.json")
    made = frugal(
        "train", "--outcomes", place / "train.jsonl", "--out", place / "bundle",
        "--tiers", "small,large", "--prices", place / "prices.json", "--embedder", "none",
        "--max-quality-loss", "0.1",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    made = extended(place, place / "longer", "--usd-per-quality-point", "0.00005")
    assert made.exit_code == 0, made.output
    return place


def about(bundle):
    return json.loads((bundle / "manifest.json").read_text())["about"]


def test_bundle_says_what_joined_it_and_what_it_was_before(place, tmp_path):
    made = extended(place, tmp_path / "new", "--json")
    told = json.loads(made.stdout)

    assert made.exit_code == 0, made.output
    assert "estimates of mini" in made.stderr
    before = load_learnt(place / "bundle")
    assert told["extends"] == before.id != told["id"]
    assert told["models"] == ["small", "large", "mini"]
    assert (told["reference"], told["data"]) == ("large", before.about["data"])
    (joined,) = told["joined"]
    assert (joined["model"], joined["probes"], joined["compared"]) == ("mini", 120, 120)
    assert joined["data"].endswith("probes.jsonl")
    assert load_learnt(tmp_path / "new").id == told["id"]


def test_certificate_is_dropped_until_the_longer_lineup_is_certified(place, tmp_path):
    made = extended(place, tmp_path / "new")
    assert before_and(place, tmp_path / "new") == (True, False)
    assert "until `frugal certify`" in made.stdout
    assert about(tmp_path / "new")["operating"]["mix"] is None

    later = write_rows(tmp_path / "later.jsonl", probes(200, seed=8))
    found = frugal("certify", "--bundle", tmp_path / "new", "--outcomes", later)

    assert found.exit_code == 0, found.output
    assert before_and(place, tmp_path / "new") == (True, True)


def before_and(place, bundle):
    return tuple(about(each)["certificate"] is not None for each in (place / "bundle", bundle))


def test_newcomer_is_foretold_and_evaluated_like_the_others(place, tmp_path):
    source = write_rows(tmp_path / "in.jsonl", [{"query_id": "a", "prompt": "What is 300 + 41?"}])
    out = tmp_path / "out.jsonl"
    found = frugal("predict", "--bundle", place / "longer", "--input", source, "--output", out)
    rows = {row["model"]: row for row in map(json.loads, out.read_text().splitlines())}
    later = write_rows(tmp_path / "later.jsonl", probes(60, seed=6))
    measured = frugal(
        "evaluate", "--bundle", place / "longer", "--outcomes", later, "--json"
    )  # fmt: skip

    assert found.exit_code == measured.exit_code == 0, found.output
    assert rows.keys() == {"small", "large", "mini"}
    assert rows["mini"]["predicted_quality"] > rows["small"]["predicted_quality"]
    assert rows["large"]["predicted_cost"] > rows["mini"]["predicted_cost"] > 0
    ways = {row["way"]: row for row in json.loads(measured.stdout)["rows"]}
    assert ways["as it is set"]["reference_share"] < 0.2


async def test_gateway_serves_the_newcomer_where_the_small_model_errs(place, tmp_path):
    wrong = Says("603 + 204 = 817\n#### 817", tokens=(10, 3), name="small-up")
    right = Says("603 + 204 = 807\n#### 807", tokens=(10, 3), name="mini-up")
    async with (
        ScriptedUpstream(wrong) as small,
        ScriptedUpstream(right) as mini,
        ScriptedUpstream(right) as large,
        serving(trio(small, mini, large, place / "longer"), tmp_path) as gateway,
    ):
        question = "Case 7 of 9: what is 603 + 204?"
        answer = await gateway.chat(messages=[{"role": "user", "content": question}])

    assert answer.headers["x-frugal-model"] == "mini"
    assert answer.headers["x-frugal-path"].endswith(":accepted")
    assert not large.requests


def trio(small, mini, large, bundle):
    models = {
        "small": remote(small.url, price=CHEAP),
        "mini": remote(mini.url, price=CHEAP),
        "large": remote(large.url, price=DEAR),
    }
    cascade = {
        "tiers": ["small", "mini", "large"], "reference": "large",
        "confidence": "learned", "bundle": str(bundle),
    }  # fmt: skip
    return policy(models, {"auto": {"cascade": cascade}})


def test_replies_of_the_newcomer_may_lie_in_a_file_of_their_own(place, tmp_path):
    rows = list(probes(120, seed=5))
    others = write_rows(tmp_path / "a.jsonl", [row for row in rows if row["model"] != MINI])
    own = [
        {key: value for key, value in row.items() if key != "prompt"}
        for row in rows
        if row["model"] == MINI
    ]
    alone = write_rows(tmp_path / "b.jsonl", own)
    made = extended(
        place, tmp_path / "new", "--usd-per-quality-point", "0.00005", "--outcomes", others,
        outcomes=alone,
    )  # fmt: skip

    assert made.exit_code == 0, made.output
    kept, found = (
        {name: told["sha256"] for name, told in manifest["files"].items()}
        for manifest in (
            json.loads((folder / "manifest.json").read_text())
            for folder in (place / "longer", tmp_path / "new")
        )
    )
    assert kept["arrays.safetensors"] == found["arrays.safetensors"]


def two_prompts(rows):
    return [{**row, "query_id": "q"} for row in rows]


def strange(score):
    return lambda rows: [{**row, "score": score} if row["model"] == MINI else row for row in rows]


def without_reference(rows):
    return [row for row in rows if row["model"] != "large"]


def promptless(rows):
    return [{**row, "prompt": None} for row in rows]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows[:90], "at least 50 scored probes of 'mini'"),
        (two_prompts, "has two prompts"),
        (strange(1.5), "number from 0 to 1"),
        (strange(float("nan")), "not valid JSON"),
        (without_reference, "the reference is large"),
        (promptless, "expected a prompt"),
        (lambda rows: [row for row in rows if row["model"] != MINI], "no replies of model 'mini'"),
    ],
    ids=["few", "two prompts", "1.5", "NaN", "no reference", "no prompts", "nobody"],
)
def test_probes_that_nobody_can_join_by_are_refused(place, tmp_path, spoil, message):
    table = write_rows(tmp_path / "p.jsonl", spoil(list(probes(60, seed=5))))
    found = extended(place, tmp_path / "new", outcomes=table)

    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "small"), "in the bundle already"),
        (("--embedder", "all-MiniLM-L6-v2"), "trained with none, found all-MiniLM-L6-v2"),
        (("--tiers", "small,mini"), "leave them out with --extend"),
        (("--max-quality-loss", "0.1", "--max-usd-per-1k", "1"), "expected one target"),
        (("--max-quality-loss", "7"), "between 0 and 1"),
    ],
)
def test_what_cannot_be_asked_of_a_joining_is_said(place, tmp_path, arguments, message):
    found = extended(place, tmp_path / "new", *arguments)

    assert found.exit_code == 2
    assert message in found.stderr
    assert not (tmp_path / "new").exists()


def test_newcomer_without_a_price_is_refused(place, tmp_path):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    found = extended(place, tmp_path / "new", "--prices", prices)

    assert found.exit_code == 2
    assert "no price is known of mini" in found.stderr


def test_bundle_is_not_written_over_the_one_it_extends(place):
    found = extended(place, place / "bundle")

    assert found.exit_code == 2
    assert "another folder" in found.stderr


@pytest.mark.parametrize("half", [("--extend", "b"), ("--model", MINI)])
def test_half_a_joining_is_refused(place, tmp_path, half):
    found = frugal("train", "--outcomes", place / "train.jsonl", "--out", tmp_path / "b", *half)

    assert found.exit_code == 2
    assert "together" in found.stderr


def test_a_tampered_bundle_is_not_extended(place, tmp_path):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    victim = tmp_path / "bundle" / "arrays.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    shutil.copy(place / "probes.jsonl", tmp_path)
    shutil.copy(place / "prices.json", tmp_path)
    found = extended(tmp_path, tmp_path / "new")

    assert found.exit_code == 2
    assert victim.name in found.stderr
