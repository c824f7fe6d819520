"""What of the semantic cache's error budgets is news, and that a webhook hears of it."""

from __future__ import annotations

import asyncio

import pytest

from cache.semantic.decision_budget import ErrorBudget
from cache.types import StoreFailed
from gateway.error_budgets import ErrorBudgets, watched

SERVING, STOPPED = ErrorBudget(True, 10, 0, 0), ErrorBudget(False, 0, 0, 1)
AGAIN = ErrorBudget(True, 30, 0, 1)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def budgets(heard):
    return ErrorBudgets(lambda *news: heard.append(news))


def test_how_budgets_stand_at_the_start_is_no_news(budgets, heard):
    for _ in range(2):
        budgets.look([("acme", "auto", STOPPED), ("web", "auto", SERVING)])

    assert heard == []


def test_a_stop_is_told_once_and_so_is_its_end(budgets, heard):
    for state in (SERVING, STOPPED, STOPPED, AGAIN, AGAIN):
        budgets.look([("acme", "auto", state), ("web", "auto", SERVING)])

    assert heard == [("auto", "acme", STOPPED), ("auto", "acme", AGAIN)]


def test_a_budget_that_was_not_there_before_is_told_if_it_stopped(budgets, heard):
    budgets.look([])
    budgets.look([("acme", "auto", STOPPED), ("web", "auto", SERVING)])

    assert heard == [("auto", "acme", STOPPED)]


async def test_a_store_that_fails_for_a_moment_is_looked_at_again(heard):
    answers = iter([[("acme", "auto", SERVING)], None, [("acme", "auto", STOPPED)]])
    done = asyncio.Event()

    async def read():
        found = next(answers)
        if found is None:
            raise StoreFailed("away")
        return found

    async def sleep(_):
        if heard:
            done.set()
            await asyncio.Event().wait()

    async with watched(read, lambda *news: heard.append(news), sleep=sleep):
        await asyncio.wait_for(done.wait(), 20)

    assert heard == [("auto", "acme", STOPPED)]
