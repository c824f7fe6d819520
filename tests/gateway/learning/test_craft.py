"""The whole learner, by itself: trained in its own process, weighed, promoted and rolled back."""

from __future__ import annotations

import json
import logging

import msgspec
import pytest

from gateway.learning.book import Book
from gateway.learning.bundles import Bundles
from gateway.learning.craft import Craft
from gateway.learning.duties import duties_of
from gateway.learning.errors import LearningError
from gateway.learning.labour import Span, Training
from gateway.learning.steward import Steward
from gateway.learning.workshop import Workshop
from gateway.money.migrate import migrate_sqlite
from gateway.routers import build_routers
from policies.loader import parse_policy
from router.online.standing import Step
from router.query import query_of
from tests.support.policies import CHEAP, DEAR, policy, remote
from tests.support.traffic import sums_rows

SOON = {"calibrate_from": 20, "certify_from": 60, "train_from": 150}


@pytest.fixture
def book(tmp_path):
    migrate_sqlite(tmp_path / "ledger.db")
    book = Book(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield book
    book.close()


def parsed(*, store_texts=True, **cascade):
    told = {"tiers": ["small", "large"], "confidence": "learned", "audit": {}, "learning": SOON}
    models = {
        "small": remote("http://127.0.0.1:1", price=CHEAP),
        "large": remote("http://127.0.0.1:1", price=DEAR),
    }
    kept = {"privacy": {"store_texts": store_texts}}
    text = policy(models, {"auto": {"cascade": {**told, **cascade}}}, **kept)
    return parse_policy(text, name="policy.yaml", env={})


def looked_after(book, tmp_path, now_s, **changes):
    checked = parsed(**{"target": {"max_quality_loss": 0.1}, **changes})
    (duty,) = duties_of(checked)
    router = build_routers(checked)["auto"]
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    bundles = Bundles(url, tmp_path / "learned", is_shared=True)
    one = Steward(duty, router, book, lambda: now_s[0], acts=True, bundles=bundles)
    one.craft = Craft(duty, one, Workshop(tmp_path / "learned"), url, bundles, beat_s=0.05)
    return one, router


def elsewhere(book, tmp_path, name):
    """Return a route's steward and router on a machine that only shares the ledger."""
    checked = parsed(target={"max_quality_loss": 0.1})
    (duty,) = duties_of(checked)
    router = build_routers(checked)["auto"]
    bundles = Bundles(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / name, is_shared=True)
    return Steward(duty, router, book, lambda: 9.0, acts=False, bundles=bundles), router


async def settled(one):
    """Look until nothing is due and no job is under way; return the kinds of the steps."""
    while True:
        step, number = await one.look(), one.standing.number
        await one.craft.finish()
        if step is None and number == one.standing.number:
            return [step.kind for step in one._book.steps("auto")]


def asking(text):
    return query_of([{"role": "user", "content": text}])


async def _other_machines_run_it(book, tmp_path, caplog):
    """Check that a machine without the folder fetches it, and takes no changed one."""
    (tmp_path / "learned").rename(tmp_path / "away")
    other, others = elsewhere(book, tmp_path, "other")
    await other.follow()
    first = others.courses.begin(asking("What is 3 + 4?"), ["small", "large"]).step((), frozenset())

    assert first.model == "small"
    assert "was fetched from the ledger" in caplog.text
    (kept,) = (tmp_path / "other").iterdir()
    content = book.bundle(kept.name.replace("-", ":"))

    third, thirds = elsewhere(book, tmp_path, "third")
    with book.writing() as connection:
        connection.exec_driver_sql("UPDATE learnt_bundle SET content = ?", (content[:-9],))
    await third.follow()
    assert not thirds.courses.may_serve
    assert "goes by what it was before its bundle: bundle sha256:" in caplog.text
    assert not [*(tmp_path / "third").glob("*")]
    with book.writing() as connection:
        connection.exec_driver_sql("UPDATE learnt_bundle SET content = ?", (content,))
    await third.follow()
    assert type(thirds.courses) is type(others.courses)
    (tmp_path / "away").rename(tmp_path / "learned")


async def test_learner_is_trained_weighed_promoted_and_rolled_back(book, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    now_s = [1.0]
    one, router = looked_after(book, tmp_path, now_s)
    book.add(list(sums_rows(160)))
    learnt = await settled(one)
    at_first = one.standing
    now_s[0] = 2.0
    book.add(list(sums_rows(150, seed=1, start=1_000_000)))
    weighed = await settled(one)
    promoted = json.loads(book.steps("auto")[-1].detail)["detail"]
    easy = router.courses.begin(asking("What is 3 + 4?"), ["small", "large"]).step((), frozenset())
    hard = router.courses.begin(asking("What is 641 + 377?"), ["small", "large"])
    drawn = router.courses.begin(asking("What is 641 + 377?"), ["small", "large"], drawn=True)

    # No threshold on what drafts say of themselves can hold the floor: they say nothing.
    assert (learnt[0], learnt[-1]) == ("calibrated", "candidate")
    assert "certified" not in learnt
    assert "at_work" in learnt  # so that nobody takes the training for dead
    assert not at_first.bundle
    assert weighed[-1] == "promoted"
    assert one.standing.stage == "learned"
    assert promoted["certificate"]["bound"] <= 0.1
    assert promoted["usd"][2] < 0
    assert easy.model == "small"
    assert hard.step((), frozenset()).model == "large"
    assert drawn.step((), frozenset()).model == "small"  # beside what is done anyway

    await _other_machines_run_it(book, tmp_path, caplog)
    now_s[0] = 3.0
    rows = list(sums_rows(120, seed=2, start=2_500_000, slips=1.0))
    worse = [msgspec.structs.replace(row, score=0.0, served=True) if row.model == "small" else row
             for row in rows]  # fmt: skip
    book.add(worse)

    assert "rolled_back" in await settled(one)
    assert one.standing.bundle is None
    assert not router.courses.may_serve

    # The same bundle, named by a policy: it runs until the same audits speak against it.
    named, own = looked_after(book, tmp_path, now_s, bundle=promoted["bundle"]["path"])
    its_own = own.courses
    await named.follow()
    assert own.courses is its_own
    assert (await named.look()).kind == "lost"
    assert not own.courses.may_serve
    assert await named.look() is None


async def test_bundle_that_is_gone_gives_way_to_what_ran_before_it(book, tmp_path, caplog):
    one, router = looked_after(book, tmp_path, [1.0])
    lost = {"path": str(tmp_path / "gone"), "id": "sha256:0", "rate": 1.0}
    detail = {"bundle": lost, "certificate": {"bound": 0.1}, "audits": 1, "spent": True}
    assert await one.take(Step("promoted", "", detail), one.standing)

    assert not router.courses.may_serve
    assert "goes by what it was before its bundle" in caplog.text


@pytest.mark.parametrize("changes", [{"store_texts": False}, {"target": None}])
async def test_without_texts_or_a_target_nothing_is_trained(book, tmp_path, changes):
    one, _ = looked_after(book, tmp_path, [1.0], **changes)
    book.add(list(sums_rows(160)))

    assert "training" not in await settled(one)


async def test_job_that_cannot_be_done_says_why(book, tmp_path):
    span = Span(f"sqlite:///{tmp_path / 'ledger.db'}", "auto", ("small", "large"), "large", 0, 9)
    job = Training(span, str(tmp_path / "b"), {}, max_loss=0.1)

    with pytest.raises(LearningError, match="store_texts"):
        await Workshop(tmp_path).do(job)
