"""A learned cascade that starts with nothing and walks through its stages by itself."""

from __future__ import annotations

import asyncio
import json

from gateway.learning.book import Book
from gateway.money.migrate import migrate_sqlite
from gateway.providers.recorded import RecordedProvider
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, DEAR, policy, remote, two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream
from tests.support.traffic import rows_of, traffic

SOON = {"every": "100ms", "calibrate_from": 20, "certify_from": 40}
COUNT = 160


def question(number):
    return f"A box holds {number} nails. How many do {number} such boxes hold?"


def working(number, result):
    return f"{number} * {number} = {result}. The answer is #### {result}"


def right(number):
    return working(number, number * number)


def of_small(number):
    """Answer every third question wrong, in a way that working it out again shows."""
    return working(number, number * number + (number % 3 == 0))


def recorded():
    """Return both models' replies, by question."""
    numbers = range(2, COUNT + 2)
    return {
        "small": RecordedProvider.of({question(n): of_small(n) for n in numbers}),
        "large": RecordedProvider.of({question(n): right(n) for n in numbers}),
    }


def text(**cascade):
    models = {
        "small": remote("http://127.0.0.1:1", price=CHEAP),
        "large": remote("http://127.0.0.1:1", price=DEAR),
    }
    told = {
        "tiers": ["small", "large"],
        "confidence": "learned",
        "audit": {"share": 1},
        "learning": SOON,
        **cascade,
    }
    return policy(models, {"auto": {"cascade": told}})


async def until(gateway, kind):
    """Wait until a step of this kind was taken, and return all steps."""
    book = Book(gateway.books.url)
    try:
        async with asyncio.timeout(20):
            while all(step.kind != kind for step in book.steps("auto")):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return book.steps("auto")
    finally:
        book.close()


async def ask(gateway, first, last):
    """Ask a row of questions, some at a time."""
    for start in range(first, last, 10):
        await asyncio.gather(
            *(gateway.chat(question(number)) for number in range(start, min(start + 10, last)))
        )


async def test_floor_is_certified_from_nothing_and_drafts_are_served_from_then_on(tmp_path):
    floor = text(target={"max_quality_loss": 0.1})
    async with serving(floor, tmp_path, providers=recorded()) as gateway:
        first = await gateway.chat(question(2))
        await ask(gateway, 3, 110)
        steps = await until(gateway, "certified")
        served = await gateway.chat(question(110))
        while served.headers["x-frugal-model"] != "small":
            served = await gateway.chat(question(110))
        doubtful = await gateway.chat(question(111))
        told = (await gateway.admin.get("/metrics")).text

    assert first.headers["x-frugal-model"] == "large"
    assert (steps[0].kind, steps[-1].kind) == ("calibrated", "certified")
    certificate = json.loads(steps[-1].detail)["detail"]["certificate"]
    assert (certificate["losses"], certificate["max_loss"]) == (0, 0.1)
    assert served.headers["x-frugal-model"] == "small"
    assert doubtful.headers["x-frugal-model"] == "large"
    assert 'frugal_learning_stage{route="auto",stage="certified"} 1.0' in told
    assert 'frugal_learning_steps_total{kind="calibrated",route="auto"}' in told
    assert 'frugal_certified_loss_bound{route="auto"}' in told


async def test_without_a_floor_signs_are_calibrated_and_then_serve(tmp_path):
    async with serving(text(), tmp_path, providers=recorded()) as gateway:
        first = await gateway.chat(question(2))
        await ask(gateway, 3, 60)
        (step, *_) = await until(gateway, "calibrated")

    assert first.headers["x-frugal-path"] == "small:0.62:escalated,large:served"
    assert step.kind == "calibrated"


async def test_restart_comes_up_certified(tmp_path):
    floor = text(target={"max_quality_loss": 0.1})
    async with serving(floor, tmp_path, providers=recorded()) as gateway:
        await ask(gateway, 2, 110)
        await until(gateway, "certified")
    async with serving(floor, tmp_path, providers=recorded()) as gateway:
        response = await gateway.chat(question(110), stream=True)

    assert response.headers["x-frugal-model"] == "small"


# Giving drafts up


LONG = Says("forty two " * 20, tokens=(10, 40), logprobs=[-0.001] * 41, name="small-up")
DOUBTFUL = Says("forty one " * 20, tokens=(10, 40), logprobs=[-0.1, -3.0] + [-0.1] * 39)
BEST = Says("#### 42", tokens=(11, 4), name="large-up")


async def test_draft_that_cannot_reach_the_certified_threshold_is_given_up(tmp_path):
    hold = Hold()
    migrate_sqlite(tmp_path / "ledger.db")
    book = Book(f"sqlite:///{tmp_path / 'ledger.db'}")
    book.add(list(rows_of(traffic(400))))
    book.close()
    cascade = {
        "confidence": "learned",
        "target": {"max_quality_loss": 0.05},
        "audit": {"share": 1e-9},
        "learning": {"every": "100ms"},
    }

    def small_says(received):
        if b"easy" in received.body:
            return LONG(received)
        return [*DOUBTFUL.until(2, has_logprobs=True), hold]

    async with (
        ScriptedUpstream(small_says) as small,
        ScriptedUpstream(BEST) as large,
        serving(two_tiers(small.url, large.url, cascade=cascade), tmp_path) as gateway,
    ):
        await until(gateway, "certified")
        easy = await gateway.chat("easy")
        while easy.headers["x-frugal-model"] != "small":
            easy = await gateway.chat("easy", seed=len(large.requests))
        doubtful = await gateway.chat("hard")
        await small.until_gone()
        told = (await gateway.admin.get("/metrics")).text
        (line, _) = gateway.books.lines(doubtful.headers["x-request-id"])

    assert doubtful.headers["x-frugal-path"].endswith(":escalated_early,large:served")
    assert (line["outcome"], line["output"]) == ("rejected_early", 2)
    assert "given up after 2 tokens, about 39 saved" in line["reason"]
    assert 'frugal_process_drafts_given_up_total{model="small",worker="0"} 1.0' in told
    assert 'frugal_process_draft_tokens_saved_total{model="small",worker="0"} 39.0' in told
