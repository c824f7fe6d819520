from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.semantic.guards import AxisGuards
from cache.semantic.guards.words import read, stem

_SAID = (
    "how do I set a 10 minute timer not never from Paris to London on March 5 more less than "
    "enable disable why when 3 km miles parse_date `x` 'yes' der die"
)
_WORDS = st.sampled_from(_SAID.split())
_TEXTS = st.lists(_WORDS, max_size=12).map(" ".join) | st.text(max_size=60)


@given(_TEXTS, _TEXTS)
def test_refusal_does_not_depend_on_which_question_came_first(one: str, other: str) -> None:
    guards = AxisGuards()

    assert (guards.refuse(one, other) is None) == (guards.refuse(other, one) is None)


@given(_TEXTS)
def test_a_question_serves_itself_whatever_its_capitals(text: str) -> None:
    assert AxisGuards().refuse(text, text) is None


@given(st.text(max_size=40))
def test_words_and_stems_go_in_step(text: str) -> None:
    taken = read(text)

    assert len(taken.words) == len(taken.stems)
    assert taken.stems == tuple(map(stem, taken.words))
