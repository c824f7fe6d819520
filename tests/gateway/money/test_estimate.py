from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from gateway.money.estimate import (
    IN_FLIGHT,
    REQUEST_OVERHEAD,
    estimate_usage,
    guess_tokens,
    most_prompt_tokens,
)
from gateway.money.price import Price, cost

CORPUS = [
    "The bill of a language model is counted in tokens, and tokens are made of bytes.",
    "Der Preis eines Sprachmodells wird in Token gezählt, und Token bestehen aus Bytes.",
    "語言模型的費用以詞元計算。 言語モデルの料金はトークンで数えられます。",
    "def cost(usage, price):\n    return usage.input * price.input\n" + " " * 128,
    "😀 emoji 👩‍👩‍👧 and https://example.com/?q=1&r=2 and 3.14159265358979",
]


def _trained(vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=128,
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers():
    return [_trained(size) for size in (256, 320, 2_000)]


def _template(messages):
    """Render a chat as a common template does, with a system prompt of its own."""
    head = "<|system|>You are a helpful assistant. Today is 20 Nov 2026.<|end|>\n"
    turns = "".join(f"<|{m['role']}|>\n{m['content'].strip()}<|end|>\n" for m in messages)
    return head + turns + "<|assistant|>\n"


texts = st.text(max_size=400) | st.sampled_from(CORPUS)


@settings(max_examples=60, deadline=None)
@given(prompt=texts, completion=texts)
@example(prompt=" " * 4_000, completion=" " * 4_000)
@example(prompt="", completion="")
@example(prompt="a" * 5_000, completion="é" * 3_000)
def test_bounds_contain_the_count_of_every_byte_level_tokenizer(tokenizers, prompt, completion):
    messages = [{"role": "user", "content": prompt}]
    bounded = estimate_usage({"messages": messages}, completion, is_complete=True)
    for tokenizer in tokenizers:
        asked = len(tokenizer.encode(_template(messages)).ids)
        given = len(tokenizer.encode(completion).ids)

        assert bounded.lower.input <= asked <= bounded.upper.input
        assert bounded.lower.output <= given <= bounded.upper.output


@given(prompt=texts, completion=texts, limit=st.integers(1, 200), done=st.booleans())
def test_the_guess_lies_between_its_bounds(prompt, completion, limit, done):
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": limit}
    bounded = estimate_usage(body, completion, is_complete=done)

    assert bounded.lower.input <= bounded.usage.input <= bounded.upper.input
    assert bounded.lower.output <= bounded.usage.output <= bounded.upper.output


@given(prompt=texts, completion=texts, hourly=st.booleans(), done=st.booleans())
def test_so_does_what_it_costs(prompt, completion, hourly, done):
    rates = {"machine_hour_usd": Decimal("0.4")} if hourly else {"input": Decimal(1), "output": 2}
    price = Price(**{name: Decimal(rate) for name, rate in rates.items()})
    own = estimate_usage(prompt, completion, is_complete=done, elapsed_s=0.5)

    assert cost(own.lower, price) <= cost(own.usage, price) <= cost(own.upper, price)


def test_all_counts_of_ours_are_marked_estimated():
    bounded = estimate_usage("hello", "world")

    assert bounded.usage.estimated
    assert bounded.lower.estimated
    assert bounded.upper.estimated


def test_a_cut_answer_may_have_cost_up_to_the_requests_own_limit():
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 900, "n": 2}

    assert estimate_usage(body, "So").upper.output == 1800


def test_a_cut_answer_without_a_limit_may_have_tokens_in_flight():
    assert estimate_usage("Hi", "So far").upper.output == 6 + IN_FLIGHT
    assert estimate_usage("Hi", "So far", max_output=50).upper.output == 50


def test_a_complete_answer_that_hides_nothing_costs_at_most_its_bytes_and_framing():
    bounded = estimate_usage("Hi", "x" * 100, is_complete=True, may_reason=False, max_output=900)

    assert bounded.upper.output < 200


@pytest.mark.parametrize(("asked", "most", "bound"), [(500, 900, 500), (None, 900, 900)])
def test_a_complete_answer_may_have_been_thought_about_as_long_as_was_allowed(asked, most, bound):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": asked}

    assert estimate_usage(body, "Yes", is_complete=True, max_output=most).upper.output == bound


def test_the_bound_of_tools_covers_their_indented_schema():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"a": [[[[1]]]]}}}
    plain = {"messages": [{"role": "user", "content": "Hi"}]}
    more = estimate_usage({**plain, "tools": [tool]}, "").upper.input
    less = estimate_usage(plain, "").upper.input

    assert more - less >= len(json.dumps(tool, indent=4))


def test_images_are_bounded_although_only_their_address_is_sent():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
    ]
    bounded = estimate_usage({"messages": [{"role": "user", "content": parts}]}, "A")

    assert bounded.lower.input == 1
    assert bounded.upper.input > 36_835  # a high-detail image on the dearest known scale


def test_what_the_assistant_said_before_proves_no_lower_bound():
    said = [{"role": "assistant", "content": "long " * 1_000, "tool_calls": [{"id": "c"}]}]

    assert estimate_usage({"messages": said}, "A").lower.input == 0


@pytest.mark.parametrize("body", [{}, {"messages": "no"}, {"messages": [1, None]}])
def test_odd_bodies_are_counted_rather_than_refused(body):
    assert estimate_usage(body, "").upper.input >= REQUEST_OVERHEAD


def test_lone_surrogates_do_not_stop_the_count():
    assert estimate_usage("\ud800", "\udfff", is_complete=True).usage.output == 1


def test_bytes_are_counted_as_their_text():
    assert estimate_usage("Grüße".encode(), "") == estimate_usage("Grüße", "")


def test_a_call_of_which_nothing_came_back_may_have_cost_nothing():
    assert estimate_usage("Hi", "").lower.total == 0
    assert estimate_usage("Hi", "", is_complete=True).lower.input == 1


def test_machine_time_is_bounded_by_the_time_that_passed():
    bounded = estimate_usage("Hi", "", elapsed_s=2.5)

    assert (bounded.lower.compute_s, bounded.upper.compute_s) == (0.0, 2.5)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("word " * 40, 50), ("語" * 10, 8), ("é" * 8, 4)]
)
def test_a_guess_follows_the_script(text, tokens):
    assert guess_tokens(text) == tokens


_MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.none() | st.text()},
    optional={"name": st.text(max_size=5), "tool_calls": st.just([{"id": "a"}])},
) | st.fixed_dictionaries({"content": st.just([{"type": "text", "text": "a"}, {"type": "image"}])})


@given(
    st.fixed_dictionaries(
        {"messages": st.lists(_MESSAGES, max_size=4)},
        optional={
            "tools": st.just([{"type": "function"}]),
            "response_format": st.just({"type": "text"}),
        },
    )
)
def test_a_prompts_bound_alone_is_that_of_the_whole_estimate(prompt):
    assert most_prompt_tokens(prompt) == estimate_usage(prompt, "", max_output=0).upper.input
