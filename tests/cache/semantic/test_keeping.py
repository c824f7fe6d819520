from __future__ import annotations

import pytest

from cache.quota import WriteQuota
from cache.semantic.found import Terms
from cache.semantic.keeping import is_changing, unworthy


@pytest.mark.parametrize(
    "question",
    [
        "What does the premium plan cost? I heard the price went up",
        "How much is a single ticket?",
        "What are your opening hours on Sunday?",
        "When does the pharmacy open",
        "Is the blue one in stock?",
        "Which version of the client do I need?",
        "Who is the CEO of the company?",
        "Wie hoch sind die Gebühren?",
    ],
)
def test_what_is_true_for_a_while_only_is_told(question):
    assert is_changing(question)


@pytest.mark.parametrize(
    "question",
    [
        "How do I reset my password?",
        "Explain how a transformer works",
        "What is the capital of France?",
        "My card was declined, what shall I do?",
        "",
    ],
)
def test_what_stays_true_is_not(question):
    assert not is_changing(question)


def test_the_shorter_life_never_is_the_longer():
    question = "how much is it"

    assert Terms(0.01, 100.0, changing_ttl=10.0).ttl_of(question) == 10.0
    assert Terms(0.01, 5.0, changing_ttl=10.0).ttl_of(question) == 5.0
    assert Terms(0.01, 100.0).ttl_of(question) == 100.0


def test_a_quota_is_of_a_tenant_and_a_minute():
    quota = WriteQuota()

    assert [quota.takes("a", 2, at) for at in (0.0, 30.0, 59.9, 60.0)] == [True, True, False, True]
    assert quota.takes("b", 1, 61.0)
    assert not quota.takes("b", 1, 62.0)


@pytest.mark.parametrize(
    "question",
    [
        "Where is my order 123456789?",
        "what about 4711-0815-17-3",
        "call +49 170 1234567 back",
        "Why did 123e4567-e89b-12d3-a456-426614174000 fail?",
        "explain commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "write to jane.doe@example.org",
        "what happened at 10:31:07",
    ],
)
def test_questions_of_one_person_or_moment_are_one_of_a_kind(question):
    assert unworthy(question, 1.0, 0.0) == "one of a kind"


@pytest.mark.parametrize(
    "question",
    [
        "How do I reset my password?",
        "What is 12,345,678 in words?",
        "Convert 1500 metres to miles",
        "Is 2024 a leap year, and 2028?",
        "What is 127.0.0.1?",
        "does it open at 10:30",
        "What is the deadbeef marker for?",
        "Who won in 1998-99?",
    ],
)
def test_questions_that_many_may_ask_are_not(question):
    assert unworthy(question, 1.0, 0.0) is None


def test_what_cost_too_little_is_not_kept():
    assert unworthy("why", 0.001, 0.002) == "too cheap to keep"
    assert unworthy("why", 0.002, 0.002) is None
