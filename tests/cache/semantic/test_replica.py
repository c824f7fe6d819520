"""Several machines that hold the same answers: what one learns or forgets, all do."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from cache.fingerprint import fingerprint
from cache.scope import Scope
from cache.semantic.found import Terms
from cache.semantic.lookup import SemanticCache
from cache.semantic.replica import Keys, Outbox, Replica
from cache.semantic.replica_scripts import SCRIPTS
from cache.semantic.scope import Asked
from cache.semantic.service import EmbeddingService
from cache.stores.redis import RedisLink
from cache.types import CachedReply
from tests.support.redis_server import RedisServer
from tests.support.semantic import AtLeast, Lettered, SameDigits

TERMS = Terms(max_error=0.01, ttl=1000.0)
KEYS = Keys(b"letters")


class Machine:
    """One cache and its replica, and how to speak to it in a line."""

    def __init__(self, cache: SemanticCache, replica: Replica, link: RedisLink) -> None:
        self.cache, self.replica, self.link = cache, replica, link

    async def keep(self, question, text, tenant="acme", route="auto"):
        reply = CachedReply((text.encode(),), False, "m", {}, time.time(), "m:served", route=route)
        vector = await self.cache.vector(question)
        await self.cache.keep(asked(question, tenant), vector, reply, answer=text, terms=TERMS)

    async def find(self, question, tenant="acme"):
        vector = await self.cache.vector(question)
        hit = await self.cache.find(asked(question, tenant), vector, TERMS)
        return hit.reply.parts[0].decode() if hit else None

    async def holds(self):
        """Return every answer by the name of its entry, and check that the index has them all."""
        names = await self.cache.with_store(lambda store, _: store.names(b"", 1000))
        records = await self.cache.with_store(lambda store, _: store.records(names))
        found = {record.name: record.opened().reply.parts[0] for record in records}
        by_scope = Counter(record.scope for record in records)
        vector = await self.cache.vector("abc")
        for scope, count in by_scope.items():
            near = await self.cache.with_store(
                lambda _, mirror, scope=scope: mirror.nearest(scope, vector, 1000)
            )
            assert len(near) == count
        return found


def asked(question, tenant="acme"):
    return Asked(question, fingerprint(tenant, "auto", "1", {}), tenant, "auto")


@asynccontextmanager
async def machine(server, path=None):
    outbox = Outbox()
    async with (
        EmbeddingService(Lettered) as service,
        SemanticCache(
            service, path=path, guards=SameDigits(), decider=lambda *_: AtLeast(),
            wall=time.time, told=outbox,
        ) as cache,
    ):  # fmt: skip
        link = RedisLink(server.url, SCRIPTS, deadline_s=5.0)
        replica = Replica(link, cache, outbox, b"letters")
        async with link, replica:
            yield Machine(cache, replica, link)


@asynccontextmanager
async def machines(server, count):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(machine(server)) for _ in range(count)]


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server


async def in_step(*all_of_them):
    """Let everybody tell, then everybody hear, until nothing moves."""
    for _ in range(3):
        for each in all_of_them:
            await each.replica.step()


async def until_up(*all_of_them):
    async with asyncio.timeout(20):
        while not all(each.link.is_up for each in all_of_them):  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.01)


async def until_down(*all_of_them):
    async with asyncio.timeout(20):
        while any(each.link.is_up for each in all_of_them):  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.01)


async def test_what_one_keeps_all_find_without_being_asked_to(server):
    async with machines(server, 3) as (one, *others):
        await one.keep("reset my password", "press the button")
        async with asyncio.timeout(20):
            for other in others:
                while await other.find("my password: reset") is None:  # noqa: ASYNC110 - polled
                    await asyncio.sleep(0.01)

        assert await others[0].find("reset my password", tenant="other") is None


async def test_a_later_answer_takes_the_place_of_an_earlier_one_everywhere(server):
    async with machines(server, 2) as (one, other):
        await one.keep("reset my password", "press the button")
        await in_step(one, other)
        await other.keep("reset my password", "ask the desk")
        await in_step(one, other)

        assert await one.find("reset my password") == "ask the desk"
        assert await one.holds() == await other.holds()


async def test_an_answer_found_wrong_is_gone_everywhere(server):
    async with machines(server, 2) as (one, other):
        await one.keep("reset my password", "press the button")
        await in_step(one, other)
        vector = await other.cache.vector("reset my password")
        hit = await other.cache.find(asked("reset my password"), vector, TERMS)
        await other.cache.observe(asked("reset my password"), hit.entry_id, TERMS, was_right=False)
        await in_step(one, other)

        assert await one.holds() == await other.holds() == {}


async def test_what_is_invalidated_is_gone_everywhere_even_where_it_was_not_known(server):
    async with machines(server, 3) as (one, other, third):
        await one.keep("reset my password", "press the button")
        await one.keep("reset my password", "for the other", tenant="other")
        await one.replica.step()
        await third.cache.drop(Scope(tenant="acme"))  # which has not heard of it
        await third.replica.step()
        await in_step(one, other, third)

        for each in (one, other, third):
            assert list((await each.holds()).values()) == [b"for the other"]


async def test_one_question_is_forgotten_everywhere_even_where_it_was_not_known(server):
    async with machines(server, 2) as (one, other):
        await one.keep("reset my password", "press the button")
        await one.replica.step()
        scope = Scope(tenant="acme", key=asked("").scope)
        await other.cache.drop(scope, question="reset my password")
        await in_step(other, one)

        assert await one.holds() == await other.holds() == {}


async def test_while_redis_is_away_each_goes_on_and_then_they_agree(server, tmp_path):
    async with machines(server, 2) as (one, other):
        await one.keep("reset my password", "press the button")
        await one.keep("lost my card", "call us")
        await in_step(one, other)
        server.kill()
        await until_down(one, other)
        assert await other.find("reset my password") == "press the button"
        await other.keep("opening hours", "nine to five")
        await other.cache.drop(Scope(), question="reset my password")
        await one.cache.drop(Scope(model="other"))
        server.start()  # which has lost everything it had
        await until_up(one, other)
        await in_step(other, one)

        assert await one.holds() == await other.holds()
        assert await one.find("opening hours") == "nine to five"
        assert await other.find("lost my card") == "call us"
        async with machine(server) as newcomer:
            await newcomer.replica.step()
            assert await newcomer.holds() == await one.holds()


async def test_an_invalidation_while_redis_is_away_reaches_the_others_later(server):
    async with machines(server, 2) as (one, other):
        await one.keep("reset my password", "press the button")
        await in_step(one, other)
        server.kill()
        await until_down(one, other)
        await one.cache.drop(Scope(tenant="acme"))
        assert await other.find("reset my password") == "press the button"
        server.start()
        await until_up(one, other)
        await in_step(one, other)

        assert await one.holds() == await other.holds() == {}


@pytest.mark.parametrize("lost", ["DEL", "XTRIM"])
async def test_one_that_missed_events_compares_everything(server, tmp_path, lost):
    path = tmp_path / "answers.db"
    async with machine(server) as one:
        async with machine(server, path) as other:
            await one.keep("reset my password", "press the button")
            await one.keep("lost my card", "call us")
            await in_step(one, other)
        await one.cache.drop(Scope(key=asked("").scope), question="lost my card")
        await one.keep("opening hours", "nine to five")
        await one.replica.step()
        server.say(*([lost, KEYS.log] if lost == "DEL" else [lost, KEYS.log, "MAXLEN", "0"]))
        async with machine(server, path) as other:
            await other.replica.step()

            assert other.replica.compared == 1
            assert await other.holds() == await one.holds()
            assert len(await one.holds()) == 2


async def test_one_that_was_away_takes_up_where_it_was(server, tmp_path):
    path = tmp_path / "answers.db"
    async with machine(server) as one:
        async with machine(server, path) as other:
            await one.keep("reset my password", "press the button")
            await in_step(one, other)
        await one.cache.drop(Scope(tenant="acme"))
        await one.replica.step()
        await one.keep("lost my card", "call us")
        await one.replica.step()
        async with machine(server, path) as other:
            await other.replica.step()

            assert other.replica.compared == 0
            assert list((await other.holds()).values()) == [b"call us"]


async def test_a_cache_that_never_shared_brings_its_answers_along(server, tmp_path):
    path = tmp_path / "answers.db"
    async with (
        EmbeddingService(Lettered) as service,
        SemanticCache(
            service, path=path, guards=SameDigits(), decider=lambda *_: AtLeast(), wall=time.time
        ) as cache,
    ):
        await Machine(cache, None, None).keep("reset my password", "press the button")
    async with machine(server, path) as old, machine(server) as new:
        await in_step(old, new)

        assert await new.find("reset my password") == "press the button"


async def test_what_somebody_else_wrote_is_passed_over(server):
    async with machine(server) as one:
        await one.keep("reset my password", "press the button")
        await one.replica.step()
        (name,) = await one.holds()
        data = server.say("GET", KEYS.entry(name)).partition(b"\r\n")[2][:-2]
        for forged in (b"x", data[:-1], data.replace(b"reset my", b"steal my")):
            server.say("SET", KEYS.entry(name), forged)
            async with machine(server) as newcomer:
                await newcomer.replica.step()
                assert await newcomer.holds() == {}
        server.say("SET", KEYS.entry(name), data)
        async with machine(server) as newcomer:
            await newcomer.replica.step()
            assert await newcomer.holds() == await one.holds()


@pytest.mark.parametrize("seed", range(12))
async def test_any_course_of_events_ends_in_agreement(server, seed):
    drawn = random.Random(seed)
    questions = ["reset my password", "lost my card", "opening hours", "where is my order"]
    async with machines(server, 3) as all_of_them:
        for number in range(25):
            one = drawn.choice(all_of_them)
            question = drawn.choice(questions)
            tenant = drawn.choice(["acme", "other"])
            match drawn.randrange(6):
                case 0 | 1 | 2:
                    await one.keep(question, f"answer {number}", tenant)
                case 3:
                    scope = Scope(tenant=tenant, key=asked("", tenant).scope)
                    await one.cache.drop(scope, question=question)
                case 4:
                    await one.cache.drop(Scope(tenant=tenant))
                case 5:
                    await one.replica.step()
            if number == 15 and seed % 3 == 0:
                server.say("FLUSHALL")
        await in_step(*all_of_them)

        held = [await each.holds() for each in all_of_them]
        assert held[0] == held[1] == held[2]
