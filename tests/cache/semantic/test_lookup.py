from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cache.fingerprint import fingerprint
from cache.scope import Scope
from cache.semantic.decision import CalibratedDecider
from cache.semantic.found import Terms
from cache.semantic.lookup import SemanticCache
from cache.semantic.scope import Asked
from cache.semantic.service import EmbeddingService
from cache.types import CachedReply
from tests.support.semantic import AtLeast, Lettered, SameDigits

TERMS = Terms(max_error=0.01, ttl=100.0)


class Bench:
    """A cache at work, and how to speak to it in a line."""

    def __init__(self, cache: SemanticCache, decider: AtLeast) -> None:
        self.cache = cache
        self.decider = decider

    def asked(self, question: str, tenant: str = "acme") -> Asked:
        return Asked(question, fingerprint(tenant, "auto", "1", {}), tenant, "auto")

    async def keep(self, question: str, text: str, terms: Terms = TERMS, **place: str) -> None:
        reply = CachedReply((text.encode(),), False, "m", {}, 1000.0, "m:served", route="auto")
        vector = await self.cache.vector(question)
        await self.cache.keep(
            self.asked(question, **place), vector, reply, answer=text, terms=terms
        )

    async def find(self, question: str, **place: str) -> str | None:
        vector = await self.cache.vector(question)
        hit = await self.cache.find(self.asked(question, **place), vector, TERMS)
        return hit.reply.parts[0].decode() if hit else None


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def bench_at(now):
    @asynccontextmanager
    async def opened(path=None, version="letters", decider=None, pairs=None):
        decider = decider or AtLeast()
        async with (
            EmbeddingService(lambda: Lettered(version)) as service,
            SemanticCache(
                service, path=path, guards=SameDigits(), decider=lambda tenant, route: decider,
                wall=lambda: now[0], cross_encoder=lambda name: pairs,
            ) as cache,
        ):  # fmt: skip
            yield Bench(cache, decider)

    return opened


async def test_a_question_in_other_words_is_answered(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press the button")

        assert await bench.find("my password: reset") == "press the button"
        assert await bench.find("zoology") is None
        assert bench.cache.stats.hits == 1


async def test_a_tenant_never_finds_anothers_answer(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press the button")

        assert await bench.find("reset my password", tenant="other") is None


async def test_a_guard_refuses_what_is_near_and_asks_something_else(bench_at):
    async with bench_at() as bench:
        await bench.keep("add 3 to 4 and then to nothing", "7")

        assert await bench.find("add 3 to 5 and then to nothing") is None
        assert bench.cache.stats.refused == {"number": 1}


async def test_an_answer_lives_as_long_as_it_may(bench_at, now):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press")
        now[0] += 101

        assert await bench.find("reset my password") is None


async def test_a_newer_answer_takes_the_place_of_the_older(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "old")
        await bench.keep("reset my password", "new")

        assert await bench.find("my password reset") == "new"
        assert await bench.cache.count() == 1


async def test_an_answer_larger_than_allowed_is_not_kept(bench_at):
    async with bench_at() as bench:
        await bench.keep("how", "x" * 5000, Terms(0.01, 100.0, max_entry=4000))

        assert await bench.cache.count() == 0


async def test_answers_survive_a_restart(bench_at, tmp_path):
    async with bench_at(tmp_path / "a.db") as bench:
        for n in range(300):
            await bench.keep(f"question {n} of many", f"answer {n}")

    async with bench_at(tmp_path / "a.db") as bench:
        await bench.cache.caught_up()

        assert await bench.find("many of question 217") == "answer 217"


async def test_one_process_finds_what_another_keeps_and_not_what_it_drops(bench_at, tmp_path):
    path = tmp_path / "a.db"
    async with bench_at(path) as one, bench_at(path) as other:
        await one.keep("reset my password", "press")
        await other.keep("close my account", "write")
        await one.keep("open an account", "call")

        assert await other.find("reset password my") == "press"
        assert await one.find("close account my") == "write"
        assert await other.find("open an account") == "call"
        assert await one.cache.drop(Scope(tenant="acme")) == 3
        assert await other.find("reset password my") is None


async def test_a_change_of_embedder_renews_the_entries_in_the_background(bench_at, tmp_path):
    async with bench_at(tmp_path / "a.db", "v1") as bench:
        await bench.keep("reset my password", "press")

    async with bench_at(tmp_path / "a.db", "v2") as bench:
        await bench.cache.caught_up()

        assert await bench.find("password my reset") == "press"


async def test_a_hit_found_wrong_is_told_and_not_served_again(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press")
        asked = bench.asked("my password reset")
        vector = await bench.cache.vector(asked.question)
        hit = await bench.cache.find(asked, vector, TERMS)

        await bench.cache.observe(asked, hit.entry_id, TERMS, was_right=False)

        assert bench.decider.observed == [(hit.entry_id, False)]
        assert await bench.find("my password reset") is None


async def test_a_hit_that_its_client_doubts_is_not_served_again_and_is_no_audit(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press")
        asked = bench.asked("my password reset")
        hit = await bench.cache.find(asked, await bench.cache.vector("x"), TERMS, "unheard")
        assert hit is None
        hit = await bench.cache.find(asked, await bench.cache.vector(asked.question), TERMS, "r")

        assert not await bench.cache.doubt("r", "evil")
        assert await bench.find("my password reset") == "press"
        assert await bench.cache.doubt("r", "acme")
        assert not await bench.cache.doubt("r", "acme")
        assert not await bench.cache.doubt("unheard", "acme")
        assert bench.decider.observed == [(hit.entry_id, False)]
        assert await bench.find("my password reset") is None
        assert await bench.cache.budgets() == []
        assert bench.cache.stats.doubted == 1


async def test_an_answer_of_a_corpus_is_doubted_for_one_tenant_and_stays_for_others(bench_at):
    async with bench_at() as bench:
        scope = fingerprint("acme", "auto", "1", {}, corpus="handbook")
        asked, reply = (
            Asked("reset my password", scope, "acme", "auto"),
            CachedReply((b"press",), False, "m", {}, 1000.0, "m:served", route="auto"),
        )
        vector = await bench.cache.vector(asked.question)
        await bench.cache.keep(asked, vector, reply, answer="press", terms=TERMS)
        hit = await bench.cache.find(asked, vector, TERMS, "r")

        assert await bench.cache.doubt("r", "acme")
        assert bench.decider.observed == [(hit.entry_id, False)]
        assert await bench.cache.find(asked, vector, TERMS) is not None


async def test_a_route_whose_answers_were_wrong_is_exact_only_even_after_a_restart(
    bench_at, tmp_path
):
    loose = Terms(max_error=0.2, ttl=100.0)
    async with bench_at(tmp_path / "a.db") as bench:
        asked = bench.asked("reset my password")
        for number in range(8):
            await bench.cache.observe(asked, f"{number + 100}", loose, was_right=False)

    async with bench_at(tmp_path / "a.db") as bench:
        await bench.keep("reset my password", "press")
        vector = await bench.cache.vector("reset my password")
        hit = await bench.cache.find(asked, vector, loose)

        assert hit.is_withheld
        ((tenant, route, budget),) = await bench.cache.budgets()
        assert (tenant, route, budget.is_serving, budget.stops) == ("acme", "auto", False, 1)


async def test_a_route_found_right_often_enough_serves_again(bench_at):
    loose = Terms(max_error=0.2, ttl=100.0)
    async with bench_at() as bench:
        asked = bench.asked("reset my password")
        await bench.keep("reset my password", "press")
        for number in range(8):
            await bench.cache.observe(asked, f"{number + 100}", loose, was_right=False)
        for number in range(20):
            await bench.cache.observe(asked, f"{number + 200}", loose, was_right=True)

        assert await bench.find("reset my password") == "press"


async def test_a_tenant_that_floods_drives_out_its_own_answers_alone(bench_at):
    few = Terms(max_error=0.01, ttl=100.0, max_entries=10)
    async with bench_at() as bench:
        await bench.keep("reset my password", "press", few, tenant="other")
        for number in range(600):
            await bench.keep(f"question {number}", "x", few)

        assert await bench.cache.count() < 300
        assert await bench.find("reset my password", tenant="other") == "press"


async def test_what_a_tenant_may_have_kept_in_a_minute_is_bounded(bench_at, now):
    few = replace(TERMS, max_writes=2)
    async with bench_at() as bench:
        for question in ("aaa", "bbb", "ccc"):
            await bench.keep(question, f"{question}!", few)
        await bench.keep("ccc", "ccc?", few, tenant="other")
        assert [await bench.find(each) for each in ("aaa", "bbb", "ccc")] == ["aaa!", "bbb!", None]
        assert await bench.find("ccc", tenant="other") == "ccc?"
        assert bench.cache.stats.decided["write quota"] == 1
        now[0] += 60
        await bench.keep("ccc", "ccc!", few)

        assert await bench.find("ccc") == "ccc!"


async def test_what_is_cheap_or_of_one_person_is_not_kept(bench_at):
    choosy = replace(TERMS, min_usd=0.5)
    async with bench_at() as bench:
        await bench.keep("reset my password", "press", replace(TERMS, min_usd=1.5))
        await bench.keep("where is order 4711 0815 17", "lost", choosy)
        await bench.keep("change my name", "press twice", choosy)

        assert await bench.find("reset my password") is None
        assert await bench.find("where is order 4711 0815 17") is None
        assert await bench.find("change my name") == "press twice"
        assert bench.cache.stats.decided["too cheap to keep"] == 1
        assert bench.cache.stats.decided["one of a kind"] == 1


async def test_whoever_wrote_is_tidied_up_after_not_only_who_wrote_last(bench_at):
    few = replace(TERMS, max_entries=10)
    async with bench_at() as bench:
        for number in range(255):
            await bench.keep(f"question {number}", "x", few)
        await bench.keep("question", "x", few, tenant="other")

        assert await bench.cache.count() == 11


async def test_an_answer_about_what_changes_lives_for_less(bench_at, now):
    terms = replace(TERMS, ttl=1000.0, changing_ttl=10.0)
    async with bench_at() as bench:
        await bench.keep("what are your opening hours", "nine to five", terms)
        await bench.keep("reset my password", "press the button", terms)
        now[0] += 11

        assert await bench.find("what are your opening hours") is None
        assert await bench.find("reset my password") == "press the button"


async def test_dropping_for_show_drops_nothing(bench_at):
    async with bench_at() as bench:
        await bench.keep("reset my password", "press")

        assert await bench.cache.drop(Scope(tenant="acme"), dry_run=True) == 1
        assert await bench.find("reset my password") == "press"


async def test_what_a_route_learnt_is_known_after_a_restart(bench_at, tmp_path):
    question = "my password: reset"
    found = []
    for _ in range(2):
        async with bench_at(tmp_path / "answers.db", decider=CalibratedDecider()) as bench:
            await bench.keep("reset my password", "press the button")
            vector = await bench.cache.vector(question)
            hit = await bench.cache.find(bench.asked(question), vector, TERMS)
            found.append(hit.probability)
            await bench.cache.teach(bench.asked(question), hit.entry_id, was_right=False)

    assert found[1] < found[0]


async def test_hits_are_counted_across_a_restart(bench_at, tmp_path):
    async with bench_at(tmp_path / "a.db") as bench:
        await bench.keep("reset my password", "press")
        for _ in range(3):
            await bench.find("my password reset")
    seen = []
    async with bench_at(tmp_path / "a.db") as bench:
        decide = bench.decider.decide
        bench.decider.decide = lambda asked, near, error: (
            seen.extend(near) or decide(asked, near, error)
        )
        await bench.cache.caught_up()
        await bench.find("password reset my")

    assert [candidate.hits for candidate in seen] == [3]


async def test_answers_are_alike_by_their_meaning_unless_a_guard_says_otherwise(bench_at):
    async with bench_at() as bench:
        assert await bench.cache.alike("it takes 3 days", "3 days it takes") is True
        assert await bench.cache.alike("it takes 3 days", "it takes 4 days") is False
        assert await bench.cache.alike("it takes 3 days", "zzz 3") is False
        assert await bench.cache.alike("fail", "it takes long") is None


async def test_a_text_longer_than_the_model_reads_has_no_vector(bench_at):
    async with bench_at() as bench:
        assert await bench.cache.vector("x" * 200) is None


async def test_an_embedder_that_fails_costs_no_answer(bench_at):
    async with bench_at() as bench:
        assert await bench.cache.vector("fail") is None
        assert bench.cache.stats.errors == 1


async def test_a_file_that_is_no_database_is_told_at_the_start(bench_at, tmp_path):
    (tmp_path / "a.db").write_text("these are words and no database, on more than one line\n" * 99)

    with pytest.raises(OSError, match="cannot be opened"):
        async with bench_at(tmp_path / "a.db"):
            pass


async def test_one_form_filled_in_differently_is_not_taken_for_one_answer(bench_at):
    async with bench_at() as bench:
        assert (
            await bench.cache.alike("ask desk north for help", "ask desk south for help")
            is not True
        )
        assert await bench.cache.alike(
            "this tells how a card comes", "this tells how a card goes"
        ) in (
            None,
            False,
        )


class Close(AtLeast):
    """Is never sure that what it decides needs no second opinion."""

    def decide(self, asked, candidates, max_error):
        found = super().decide(asked, candidates, max_error)
        return replace(found, grey=0) if candidates else found


class Pairs:
    """Scores every pair alike."""

    def __init__(self, score):
        self.value = score

    def score(self, asked, stored):
        return self.value


async def verified(bench, question):
    """Ask until the cross-encoder, which loads in the background, has had its say."""
    terms = replace(TERMS, cross_encoder="pairs")
    vector = await bench.cache.vector(question)
    await bench.cache.find(bench.asked(question), vector, terms)
    while not all(each.done() for each in bench.cache._verification._models.values()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    return await bench.cache.find(bench.asked(question), vector, terms)


async def test_a_cross_encoder_refuses_what_was_sure_and_the_answer_bought_teaches_it(bench_at):
    pairs = Pairs(-3.0)
    async with bench_at(decider=Close(), pairs=pairs) as bench:
        await bench.keep("reset my password", "press the button")
        hits = [await verified(bench, "my password: reset") for _ in range(2)]
        for hit in hits:
            await bench.cache.teach(bench.asked("my password: reset"), hit.entry_id, was_right=True)

        assert [(hit.is_sure, hit.is_withheld) for hit in hits] == [(False, True)] * 2
        assert bench.cache.stats.decided["refused by the cross-encoder"] >= 2
        assert bench.decider.observed == [(hits[0].entry_id, True)] * 2

        pairs.value = 3.0
        assert not (await verified(bench, "my password: reset")).is_withheld


async def test_a_route_that_names_no_cross_encoder_loads_none(bench_at):
    async with bench_at(decider=Close(), pairs=Pairs(-3.0)) as bench:
        await bench.keep("reset my password", "press the button")

        assert await bench.find("my password: reset") == "press the button"
        assert bench.cache._verification._models == {}
