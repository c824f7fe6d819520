"""From outcomes to a bundle to a gateway that runs it, as an operator would."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from policies.cascade import Target
from router.bundled import load_learnt
from router.learnt_build import differs
from router.targets import Spend
from tests.support.gateway_app import serving
from tests.support.policies import two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream
from tests.support.sums import (
    add_audits,
    outcomes,
    write_ledger,
    write_outcomes,
    write_prices,
    write_rows,
)

BEST = Says("41 + 1 = 42\n#### 42", tokens=(11, 4), name="large-up")


def frugal(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("learn")
    write_outcomes(place / "train.jsonl", 400, seed=1)
    write_outcomes(place / "later.jsonl", 150, seed=2)
    write_prices(place / "prices.json")
    made = frugal(
        "train", "--outcomes", place / "train.jsonl", "--out", place / "bundle",
        "--tiers", "small,large", "--prices", place / "prices.json", "--embedder", "none",
        "--max-quality-loss", "0.1", "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return place


def test_bundle_says_what_it_is_and_what_was_certified(place):
    about = json.loads((place / "bundle" / "manifest.json").read_text())["about"]

    assert about["models"] == ["small", "large"]
    assert about["reference"] == "large"
    certificate = about["certificate"]
    assert certificate["bound"] <= certificate["max_loss"] == 0.1
    assert certificate["count"] >= 59
    assert certificate["labeller"] == "exact"
    assert "train.jsonl" in certificate["data"]


def test_evaluation_shows_the_floor_held_at_lower_cost(place):
    found = frugal(
        "evaluate", "--bundle", place / "bundle", "--outcomes", place / "later.jsonl", "--json"
    )

    rows = {row["way"]: row for row in json.loads(found.stdout)["rows"]}
    own = rows["as it is set"]
    assert own["loss"] <= 0.1
    assert own["usd_per_1k"] < rows["always large"]["usd_per_1k"]
    assert own["quality"]["mean"] > rows["always small"]["quality"]["mean"]


def test_audits_in_a_ledger_are_read_as_a_file_of_them_is(place, tmp_path):
    def told(result):
        rows = json.loads(result.stdout)["rows"]
        return [(row["way"], row["quality"], row["loss"], row["calls"]) for row in rows]

    url = write_ledger(tmp_path / "ledger.db", 150, seed=2)
    file, ledger = (
        frugal("evaluate", "--bundle", place / "bundle", "--outcomes", each, "--json")
        for each in (place / "later.jsonl", f"{url}#auto")
    )

    assert ledger.exit_code == 0, ledger.output
    assert told(ledger) == told(file)


def test_a_ledger_is_learnt_from_but_for_what_was_set_against_another_reference(tmp_path):
    url = write_ledger(tmp_path / "ledger.db", 60)
    add_audits(url, 7, seed=9, reference="former")
    prices = write_prices(tmp_path / "prices.json")
    given = ("train", "--outcomes", f"{url}#auto", "--out", tmp_path / "bundle", "--embedder",
             "none", "--max-usd-per-1k", "0.03", "--prices", prices, "--json")  # fmt: skip
    torn = frugal(*given)
    made = frugal(*given, "--reference", "large")
    told = frugal("evaluate", "--bundle", tmp_path / "bundle", "--outcomes", f"{url}#auto")
    nobody = frugal(*given, "--reference", "small")

    assert torn.exit_code == nobody.exit_code == 2
    assert "set against several models: former" in torn.stderr
    assert "--reference" in torn.stderr
    assert "set against former, large, and the reference asked for is small" in nobody.stderr
    for each in (made, told):
        assert each.exit_code == 0, each.output
        assert "7 requests are left out, whose answers were set against another" in each.stderr
    assert "60 requests, reference large" in told.stdout
    assert "reading the ledger" in made.stderr
    assert "its rate was solved for $0.03 per 1,000 requests; on these it spends $" in told.stdout
    bundled = load_learnt(tmp_path / "bundle")
    assert bundled.operating.solved_for == Spend(0.03)
    assert differs(Target(max_usd_per_1k=Decimal("0.03")), bundled) is None
    assert differs(Target(usd_per_quality_point=Decimal("0.03")), bundled) is None
    assert differs(Target(max_usd_per_1k=Decimal(2)), bundled).startswith(
        "its exchange rate was solved for $0.03 per 1,000 requests, the policy asks for $2"
    )
    about = json.loads(made.stdout)
    assert (about["data"], about["models"]) == (f"{url}#auto", ["small", "large"])


def test_a_file_of_scores_against_two_models_is_refused(place, tmp_path):
    rows = [
        row | {"scored_against": "large" if number % 9 else "former"}
        for number, row in enumerate(outcomes(60, seed=3))
    ]
    table = write_rows(tmp_path / "mixed.jsonl", rows)
    made = frugal("train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none")
    found = frugal("certify", "--bundle", place / "bundle", "--outcomes", table, "--no-write")

    for each in (made, found):
        assert each.exit_code == 2
        assert "some scores are set against former" in each.stderr


def test_prompts_and_replies_are_foretold(place, tmp_path):
    right = {"query_id": "a", "prompt": "What is 300 + 41?", "model": "small",
             "response": "300 + 41 = 341\n#### 341"}  # fmt: skip
    wrong = right | {"query_id": "b", "response": "300 + 41 = 351\n#### 351"}
    bare = {"query_id": "c", "prompt": "What is 2 + 3?"}
    empty = {"query_id": "d", "prompt": ""}
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, (right, wrong, bare, empty))))

    found = frugal(
        "predict", "--bundle", place / "bundle", "--input", source,
        "--output", tmp_path / "out.jsonl", "--rate", "0.1",
    )  # fmt: skip

    assert found.exit_code == 0, found.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    told = {(row["query_id"], row["model"]): row for row in rows}
    assert len(told) == 8
    assert told["a", "small"]["predicted_quality"] > told["b", "small"]["predicted_quality"] + 0.3
    assert told["c", "small"]["quality_after"] is None
    assert told["c", "large"]["predicted_cost"] > told["c", "small"]["predicted_cost"] > 0
    assert told["d", "small"]["spread"] > 0
    assert told["b", "small"]["decisions"]["0.1"]["first"] in ("small", "large")


def test_strange_prompts_are_foretold_by_numbers(place, tmp_path):
    strange = ["", "\u3053\u306e\u30c6\u30ad\u30b9\u30c8", "add the number river " * 5000]
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    rows = [{"prompt": prompt} for prompt in strange]
    rows.append({"messages": [{"role": "user", "content": picture}]})
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))

    found = frugal("predict", "--bundle", place / "bundle", "--input", source, "--output", out)

    assert found.exit_code == 0, found.output
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(told) == 8
    for row in told:
        assert 0 < row["predicted_quality"] < 1
        assert 0 < row["predicted_cost"] < 1
        assert row["spread"] > 0


@pytest.mark.parametrize("command", ["predict", "evaluate", "certify"])
def test_a_tampered_bundle_is_used_by_nobody(place, tmp_path, command):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    victim = next(p for p in sorted((tmp_path / "bundle").rglob("*")) if p.suffix == ".safetensors")
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    named = ("--input", "--output") if command == "predict" else ("--outcomes",)
    files = (place / "later.jsonl", tmp_path / "out.jsonl")
    pairs = [part for pair in zip(named, files, strict=False) for part in pair]
    found = frugal(command, "--bundle", tmp_path / "bundle", *pairs)

    assert found.exit_code == 2
    assert victim.name in found.stderr
    assert "Traceback" not in found.stderr


def test_certificate_is_made_anew_on_later_outcomes(place):
    found = frugal(
        "certify", "--bundle", place / "bundle", "--outcomes", place / "later.jsonl",
        "--no-write", "--json",
    )  # fmt: skip

    assert json.loads(found.stdout)["certificate"]["look"] == 2


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        ("train.jsonl", (), "so nothing can be certified on them: give outcomes that it has not"),
        ("later.jsonl", ("--look", "1"), "1 were made of this bundle, so this one is 2"),
    ],
)
def test_nothing_is_certified_on_the_training_or_by_a_look_made_before(place, table, more, message):
    given = ("certify", "--bundle", place / "bundle", "--outcomes", place / table, "--no-write")
    found = frugal(*given, *more)

    assert found.exit_code == 2
    assert message in found.stderr


def test_looks_are_counted_in_the_bundle_and_repeats_are_taken_where_they_are_said(place, tmp_path):
    bundle = shutil.copytree(place / "bundle", tmp_path / "bundle")
    given = ("certify", "--bundle", bundle, "--outcomes", place / "train.jsonl", "--repeats")
    looks = [json.loads(frugal(*given, "--json").stdout)["look"] for _ in range(2)]
    told = frugal("evaluate", "--bundle", bundle, "--outcomes", place / "train.jsonl")

    assert looks == [2, 3]
    assert "of these prompts: what is measured on them flatters" in told.stderr


def test_too_few_outcomes_certify_nothing_and_say_so(place, tmp_path):
    few = write_outcomes(tmp_path / "few.jsonl", 20, seed=3)

    found = frugal("certify", "--bundle", place / "bundle", "--outcomes", few, "--no-write")

    assert found.exit_code == 1
    assert "the reference answers" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tiers", "small,nobody"), "nobody"),
        (("--max-quality-loss", "0.1", "--max-usd-per-1k", "1"), "expected one target"),
        (("--max-quality-loss", "1.5"), "between 0 and 1"),
        (("--tiers", "small"), "two tiers at least"),
        (("--tiers", "small,small", "--reference", "small"), "expected each tier once"),
        (("--tiers", "small,larg"), "did you mean large?"),
        (("--out", "/dev/null/b"), "--out: cannot write /dev/null/b"),
        (("--out", "/tmp"), "--out: /tmp exists and is no bundle"),
        (("--policy", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_cannot_be_learnt_is_said_in_a_line(place, tmp_path, arguments, message):
    found = frugal(
        "train", "--outcomes", place / "later.jsonl", "--out", tmp_path / "b",
        "--embedder", "none", *arguments,
    )  # fmt: skip

    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "expected rows with query_id, model, found none"),
        ('{"query_id": "a", "model": "m", "score": NaN}', "JSON has no NaN or Infinity"),
        ('{"query_id": "a", "model": "m", "score": 2}', "score: expected a number from 0 to 1"),
        ('{"query_id": "a", "score": 1, "prompt": "p"}', "column 'model' is missing"),
        ('{"query_id": "a", "model": "m", "score": 1}', "column 'prompt' is missing"),
        ('{"query_id": "a", "model": "m", "score": 1, "prompt": "p"}', "two models at least"),
    ],
)
def test_tables_that_teach_nothing_are_told_what_they_lack(tmp_path, line, message):
    table = tmp_path / "table.jsonl"
    table.write_text(line)
    found = frugal("train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none")

    assert found.exit_code == 2
    assert message in found.stderr


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": "hello"}, "row 1: messages: expected a list of messages; found 'hello'"),
        ({"prompt": 5}, "row 1: prompt: expected a text; found 5"),
        ({"prompt": "p", "model": "small", "response": 5}, "row 1: response: expected a text"),
        ({"question": "p"}, "expected a column `prompt` or `messages`"),
    ],
)
def test_rows_that_nothing_can_be_foretold_of_are_refused(place, tmp_path, row, message):
    table, out = write_rows(tmp_path / "odd.jsonl", [row]), tmp_path / "out.jsonl"
    found = frugal("predict", "--bundle", place / "bundle", "--input", table, "--output", out)

    assert found.exit_code == 2
    assert message in found.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "say it again"}, "expected at least 10 different prompts, found 1 in 60"),
        ({"response": None}, "expected replies (column `response`) in some rows, found none"),
    ],
)
def test_requests_all_alike_or_without_replies_teach_nothing(tmp_path, changes, message):
    table = write_rows(tmp_path / "odd.jsonl", [row | changes for row in outcomes(60)])
    found = frugal("train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none")

    assert found.exit_code == 2
    assert message in found.stderr


def test_an_empty_reply_is_foretold_to_be_wrong(place, tmp_path):
    row = {"query_id": "q", "prompt": "what is 3 + 4?", "model": "small", "response": " "}
    table, out = write_rows(tmp_path / "empty.jsonl", [row]), tmp_path / "out.jsonl"
    frugal("predict", "--bundle", place / "bundle", "--input", table, "--output", out)
    small = next(
        told for told in map(json.loads, out.read_text().splitlines()) if told["model"] == "small"
    )

    assert small["predicted_quality"] == small["quality_after"] == 0.0
    assert small["quality_before"] > 0.0


def test_rows_left_out_and_rows_that_repeat_others_are_told(tmp_path):
    rows = list(outcomes(5))
    rows = [*rows, rows[0], {**rows[2], "query_id": "alone"}]
    table = write_rows(tmp_path / "odd.jsonl", rows)
    found = frugal("train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none")

    assert "1 of 6 requests have no score for every tier" in found.stderr
    assert "1 rows have the query, model and sample of another" in found.stderr


def test_ten_rows_teach_nothing(tmp_path):
    table = write_outcomes(tmp_path / "ten.jsonl", 5)

    found = frugal(
        "train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none",
        "--tiers", "small,large",
    )  # fmt: skip

    assert found.exit_code == 2
    assert "cold start" in found.stderr


def test_outcomes_without_token_counts_are_learnt_from_all_the_same(tmp_path):
    rows = [
        {k: v for k, v in row.items() if not k.endswith("_tokens")} for row in outcomes(60, seed=4)
    ]
    table = tmp_path / "bare.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))

    made = frugal(
        "train", "--outcomes", table, "--out", tmp_path / "b", "--embedder", "none",
        "--usd-per-quality-point", "0.01", "--json",
    )  # fmt: skip

    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["models"] == ["large", "small"]


def learned(small, large, place, **cascade):
    told = {"confidence": "learned", "bundle": str(place / "bundle"), **cascade}
    return two_tiers(small.url, large.url, cascade=told)


def ask(question):
    return [{"role": "user", "content": f"Case 7 of 9: what is {question}?"}]


async def test_gateway_serves_what_the_bundle_trusts_and_escalates_what_it_does_not(
    place, tmp_path
):
    right = Says("3 + 4 = 7\n#### 7", tokens=(10, 3), name="small-up")
    wrong = Says("603 + 204 = 817\n#### 817", tokens=(10, 3), name="small-up")
    async with (
        ScriptedUpstream(lambda got: (wrong if b"603" in got.body else right)(got)) as small,
        ScriptedUpstream(BEST) as large,
        serving(learned(small, large, place), tmp_path) as gateway,
    ):
        easy = await gateway.chat(messages=ask("3 + 4"))
        hard = await gateway.chat(messages=ask("603 + 204"))

    assert easy.headers["x-frugal-model"] == "small"
    assert easy.headers["x-frugal-path"].endswith(":accepted")
    assert hard.headers["x-frugal-model"] == "large"
    newest = gateway.books.entries()[-1]
    (line, *_) = gateway.books.lines(newest["request_id"])
    assert line["reason"]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


async def test_strange_prompts_are_answered_by_a_learned_route(place, tmp_path):
    contents = ("", " \n", "word " * 60_000, "今天天气怎么样", "Сколько будет 2 + 2?",
                "\u202e🙂", [IMAGE], [IMAGE] * 9)  # fmt: skip
    says = Says("3 + 4 = 7\n#### 7", tokens=(10, 3), name="small-up")
    async with (
        ScriptedUpstream(says) as small,
        ScriptedUpstream(BEST) as large,
        serving(learned(small, large, place), tmp_path) as gateway,
    ):
        answers = [
            await gateway.chat(messages=[{"role": "user", "content": content}])
            for content in contents
        ]

    assert [answer.status_code for answer in answers] == [200] * len(contents)
    assert are_confidences_shares(gateway.books)


def are_confidences_shares(books):
    """Return whether every attempt's confidence is a number from 0 to 1, or not known."""
    lines = [line for entry in books.entries() for line in books.lines(entry["request_id"])]
    return bool(lines) and all(
        line["confidence"] is None or 0.0 <= line["confidence"] <= 1.0 for line in lines
    )


@pytest.mark.parametrize("tokens", [[-9999.0, -0.1], [float("-inf")], [float("nan")], [2.0]])
async def test_no_odd_log_probability_reaches_a_decision(place, tmp_path, tokens):
    says = Says("3 + 4 = 7\n#### 7", tokens=(10, 3), name="small-up", logprobs=tokens * 8)
    async with (
        ScriptedUpstream(says) as small,
        ScriptedUpstream(BEST) as large,
        serving(learned(small, large, place), tmp_path) as gateway,
    ):
        answer = await gateway.chat(messages=ask("3 + 4"))

    assert answer.status_code == 200, answer.text
    assert are_confidences_shares(gateway.books)


async def test_floor_tighter_than_the_certificate_is_answered_by_the_reference(place, tmp_path):
    small_says = Says("3 + 4 = 7\n#### 7", tokens=(10, 3), name="small-up")
    target = {"max_quality_loss": 0.001}
    async with (
        ScriptedUpstream(small_says) as small,
        ScriptedUpstream(BEST) as large,
        serving(learned(small, large, place, target=target), tmp_path) as gateway,
    ):
        response = await gateway.chat(messages=ask("3 + 4"))

    assert response.headers["x-frugal-path"] == "large:served"
    assert not small.requests


async def test_spending_is_paced_to_the_budget_of_the_policy(place, tmp_path, caplog):
    """Every hard question wants the reference; the budget pays for some of them."""
    wrong = Says("603 + 204 = 817\n#### 817", tokens=(1000, 1000), name="small-up")
    best = Says("603 + 204 = 807\n#### 807", tokens=(1000, 1000), name="large-up")
    # With these tokens a small draft costs $0.003 and the reference $0.03.
    target = {"max_usd_per_1k": 10.0}
    async with (
        ScriptedUpstream(wrong) as small,
        ScriptedUpstream(best) as large,
        serving(learned(small, large, place, target=target), tmp_path) as gateway,
    ):
        for number in range(150):
            await gateway.chat(messages=ask(f"60{number % 10} + {200 + number}"))

    spent = [row["cost_nano_usd"] / 1e9 for row in gateway.books.entries()]
    assert len(spent) == 150
    assert "it was solved for a quality floor, the policy asks for $10" in caplog.text
    assert sum(spent[75:]) / 75 == pytest.approx(0.010, rel=0.5)


def test_of_a_ledger_an_answer_that_nobody_scored_counts_as_worse(place, tmp_path):
    def certified(url):
        found = frugal(
            "certify", "--bundle", place / "bundle", "--outcomes", url, "--no-write", "--json"
        )
        return json.loads(found.stdout)

    every = certified(write_ledger(tmp_path / "told.db", 150, seed=2))
    url = write_ledger(tmp_path / "untold.db", 150, seed=2)
    unscore(url, share=3)
    some = certified(url)

    assert every["unscored"] == 0
    assert every["walked"][0]["count"] == some["walked"][0]["count"] == 150
    assert some["unscored"] == 50
    last = len(some["walked"]) - 1
    assert some["walked"][last]["losses"] > every["walked"][last]["losses"]


def unscore(url, *, share):
    """Take the scores of every `share`-th request's draft away."""
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE outcome SET score = NULL WHERE model = 'small' AND (at_us % :share) = 0"),
            {"share": share},
        )
    engine.dispose()


def test_a_judge_certifies_with_its_measured_error_alone(place):
    arguments = (
        "certify", "--bundle", place / "bundle", "--outcomes", place / "later.jsonl",
        "--no-write", "--json", "--labeller", "judge",
    )  # fmt: skip
    untold, wrong = frugal(*arguments), frugal(*arguments, "--labeller-error", "1.5")
    told = frugal(*arguments, "--labeller-error", "0.06")

    assert untold.exit_code == wrong.exit_code == 2
    assert "measured error" in untold.stderr
    assert "share from 0 to 1" in wrong.stderr
    certificate = json.loads(told.stdout)["certificate"]
    assert certificate is None or certificate["labeller_error"] == 0.06


def test_a_certificate_lapses_when_it_was_said_to(place, tmp_path):
    shutil.copytree(place / "bundle", tmp_path / "bundle")
    found = frugal(
        "certify", "--bundle", tmp_path / "bundle", "--outcomes", place / "later.jsonl",
        "--valid-days", "30",
    )  # fmt: skip
    bundled = load_learnt(tmp_path / "bundle")
    last = date.fromisoformat(bundled.certificate.valid_until)

    assert found.exit_code == 0, found.output
    assert f"valid until {last}" in found.stdout
    assert not bundled.certificate.has_lapsed(last.isoformat())
    assert bundled.certificate.has_lapsed((last + timedelta(days=1)).isoformat())
