"""Kept answers in either mode, whatever mode they came in."""

from __future__ import annotations

import json

import pytest

from gateway.money.usage import Usage
from gateway.released import in_mode, is_event, usage_told
from gateway.wire import Part
from tests.support.gateway_app import events_of, text_of
from tests.support.replies import Says

ANSWER = Says("one two three", tokens=(10, 3))
WHOLE = [Part(json.dumps(ANSWER.body()).encode(), ANSWER.text, "stop", Usage(10, output=3))]
EVENTS = [Part(data) for data in ANSWER.events()]


def test_a_body_is_no_event_and_an_event_is():
    assert not is_event(WHOLE[0])
    assert all(map(is_event, EVENTS))


@pytest.mark.parametrize(("parts", "stream"), [(WHOLE, False), (EVENTS, True)])
def test_an_answer_in_the_mode_asked_for_is_left_as_it_is(parts, stream):
    assert in_mode(parts, stream=stream) is parts


def test_events_become_one_body():
    (part,) = in_mode(EVENTS, stream=False)

    assert json.loads(part.data) == ANSWER.body()


def test_a_body_becomes_events_of_which_the_last_is_about_usage_alone():
    parts = in_mode(WHOLE, stream=True)
    events = events_of("".join(part.data.decode() for part in parts))

    assert text_of(events) == ANSWER.text
    assert [part.is_usage_only for part in parts] == [False] * (len(parts) - 1) + [True]
    assert events[-1]["usage"] == ANSWER.usage
    assert [part.usage for part in parts if part.usage] == [Usage(10, output=3)]


def test_there_and_back_is_the_same_answer():
    (part,) = in_mode(in_mode(WHOLE, stream=True), stream=False)

    assert json.loads(part.data) == ANSWER.body()


def test_usage_of_a_later_version_is_read_as_far_as_it_is_known():
    assert usage_told({"input": 3, "output": 4, "smell": 5}) == Usage(input=3, output=4)
    assert usage_told({}) is None
