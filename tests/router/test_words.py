from __future__ import annotations

import numpy as np
import pytest

from router.state import State
from router.words import Words, WordsError, bag_of

RIGHT = ["so the total is seven", "therefore it is seven", "we add and find seven"]
WRONG = ["I guess nine", "maybe nine or so", "no idea, nine"]


def _bags(texts):
    return [bag_of("How many?", text, "m") for text in texts]


@pytest.fixture(scope="module")
def words():
    return Words.fit(_bags(RIGHT * 5 + WRONG * 5), [1.0] * 15 + [0.0] * 15)


def test_words_of_right_replies_speak_for_a_reply(words):
    right, wrong = words(_bags(["it is seven", "I guess it is nine"]))

    assert right > 0 > wrong


def test_a_word_never_seen_and_no_words_at_all_are_no_error(words):
    assert np.isfinite(
        words([bag_of("", "", ""), bag_of("\ud800", "zyzzyva \U0001f600", "x")])
    ).all()


def test_labels_all_alike_give_one_verdict():
    assert (Words.fit(_bags(RIGHT), [1.0] * 3)(_bags(WRONG)) > 0).all()
    assert (Words.fit(_bags(RIGHT), [0.0] * 3)(_bags(WRONG)) < 0).all()


def test_words_that_were_taught_nothing_say_nothing():
    assert Words.untaught()(_bags(RIGHT)).tolist() == [0.0] * 3


def test_words_come_back_from_their_state(words):
    again = Words.from_state(words.to_state())

    assert np.array_equal(again(_bags(RIGHT)), words(_bags(RIGHT)))


@pytest.mark.parametrize("change", [
    {"weight": np.zeros(3)}, {"rarity": np.full(1 << 17, np.nan)},
])  # fmt: skip
def test_a_foreign_state_is_refused(words, change):
    state = words.to_state()

    with pytest.raises(WordsError, match="train the bundle again"):
        Words.from_state(State(state.values, {**state.arrays, **change}))


def test_a_bias_that_is_no_number_is_refused(words):
    with pytest.raises(WordsError):
        Words.from_state(State({"bias": "0"}, words.to_state().arrays))
