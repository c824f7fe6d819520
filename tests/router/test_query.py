from __future__ import annotations

import numpy as np
import pytest

from router.query import Query, QueryError, content_key, group_key, query_of, text_of


def test_query_of_a_conversation_has_the_last_user_turn():
    query = query_of(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "First?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": "And second?"}]},
        ],
        category="chat",
    )

    assert query.text == "And second?"
    assert query.category == "chat"
    assert not query.has_images


def test_query_of_images_alone_has_no_text():
    query = query_of([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])

    assert query.text == ""
    assert query.has_images


@pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "x"}], [{}]])
def test_query_of_nothing_asked_is_empty(messages):
    assert query_of(messages).text == ""


@pytest.mark.parametrize("content", [None, 7, [1, None], [{"text": 3}]])
def test_content_without_text_is_no_text(content):
    assert text_of(content) == ""


@pytest.mark.parametrize(
    "vector", [[np.nan, 0.0], [np.inf, 0.0], [[1.0, 0.0]], []], ids=["nan", "inf", "2d", "empty"]
)
def test_vector_that_would_spoil_an_estimate_is_refused(vector):
    with pytest.raises(QueryError, match="vector: expected"):
        Query("text", vector=np.array(vector, np.float32))


def test_negative_token_count_is_refused():
    with pytest.raises(QueryError, match="input_tokens: expected 0 or more, found -1"):
        Query("text", input_tokens=-1)


def test_content_key_sees_through_case_and_spacing_but_not_signs():
    assert content_key("What is  X-1?\n") == content_key("what is x-1?")
    assert content_key("What is x-1?") != content_key("What is x+1?")


def test_group_key_joins_near_duplicates():
    asked = group_key("Which planet is nearest?\nA. Mars\nB. Venus")

    assert asked == group_key("Which planet is nearest?\nA. Venus\nB. Mars")
    assert group_key("Add 5 apples to 3 pears") == group_key("Add 7 apples to 9 pears")
    assert asked != group_key("Which planet is farthest?\nA. Mars\nB. Venus")


def test_texts_without_words_are_grouped_by_their_content():
    assert group_key("2+2") != group_key("2+3")
    assert group_key("") == group_key("  ")
    assert group_key("\ud800") == group_key("\ud800")
