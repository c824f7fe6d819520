from __future__ import annotations

import pytest

from cache.semantic.scope import Asked, asked_of


def ask(question="How do I reset my password?", *, earlier=(), tenant="acme", route="auto",
        revision="1", locale="", **members):  # fmt: skip
    messages = [*earlier, {"role": "user", "content": question}]
    body = {"model": route, "messages": messages, **members}
    return asked_of(tenant, route, revision, body, locale=locale)


def test_questions_in_other_words_have_one_scope():
    one, other = ask("How do I reset my password?"), ask("Password reset, how?")

    assert isinstance(one, Asked)
    assert one.scope == other.scope
    assert one.question != other.question


def test_mode_and_user_do_not_change_the_scope():
    plain = ask()

    assert ask(stream=True, stream_options={"include_usage": True}, user="u").scope == plain.scope


def test_text_parts_are_read_as_one_question():
    parts = [{"type": "text", "text": "How do I"}, {"type": "text", "text": "reset it?"}]

    assert ask(parts).question == "How do I\nreset it?"


def test_tenants_that_share_a_corpus_have_one_scope_and_stay_who_they_are():
    body = {"model": "auto", "messages": [{"role": "user", "content": "How do I reset it?"}]}
    one, other = (asked_of(each, "auto", "1", body, corpus="docs") for each in ("acme", "other"))
    alone, named = asked_of("acme", "auto", "1", body), asked_of("docs", "auto", "1", body)

    assert one.scope == other.scope
    assert (one.tenant, other.tenant) == ("acme", "other")
    assert len({each.owner for each in (one, other, alone, named)}) == 3


SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"})


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "other"},
        {"route": "large"},
        {"revision": "2"},
        {"locale": "de"},
        {"earlier": [SYSTEM]},
        {"earlier": TURNS},
        {"earlier": TURNS[::-1]},
        {"temperature": 0.2},
        {"seed": 7},
        {"max_tokens": 10},
        {"response_format": {"type": "json_object"}},
        {"metadata": {"locale": "fr"}},
        {"reasoning_effort": "low"},
        {"unknown_parameter": 1},
    ],
)
def test_what_may_change_an_answer_parts_the_scopes(change):
    found = ask(**change)

    assert isinstance(found, Asked)
    assert found.scope != ask().scope


def test_a_tenants_scopes_begin_alike_and_no_others():
    assert ask().scope[:8] == ask(route="x").scope[:8] != ask(tenant="other").scope[:8]


TOOL = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"functions": [{"name": "f"}]}, "tools"),
        ({"earlier": [{"role": "assistant", "tool_calls": [{}]}]}, "tools"),
        ({"earlier": [{"role": "tool", "content": "4"}]}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "output"),
        ({"audio": {"voice": "x"}}, "output"),
        ({"question": [{"type": "text", "text": "see"}, IMAGE]}, "attachment"),
        ({"earlier": [{"role": "user", "content": [IMAGE]}]}, "attachment"),
        ({"question": "  "}, "empty"),
        ({"question": "x" * 2000}, "long"),
        ({"temperature": 1.5}, "temperature"),
        ({"question": "Write a short poem about rain"}, "creative"),
        ({"question": "Tell me a joke", "temperature": 0.9}, "creative"),
        ({"question": "What is the weather in Rome?"}, "now"),
        ({"question": "Who is the current president?"}, "now"),
        ({"question": "What happened in the last week?"}, "now"),
        ({"question": "Wie ist der Kurs heute?"}, "now"),
        ({"question": "今天天气怎么样"}, "now"),
    ],
)
def test_what_must_not_be_shared_is_refused_with_its_reason(change, reason):
    question = change.pop("question", "How?")

    assert ask(question, **change) == reason


def test_an_answer_that_was_begun_is_not_shared():
    begun = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}

    assert asked_of("t", "r", "1", begun) == "turn"


def test_calm_creative_work_and_plain_words_are_shared():
    assert isinstance(ask("Write a poem about rain", temperature=0), Asked)
    assert isinstance(ask("What does the author know about newts?"), Asked)
