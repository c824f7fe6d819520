from __future__ import annotations

from itertools import count, islice
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer

from local_engine.demo.batches import Batch, Style, batches, chat_text
from local_engine.demo.evaluate import Reply, auroc, auroc_within, interval, replies, report
from local_engine.demo.export import load_checkpoint, save_checkpoint
from local_engine.demo.network import Llama, Shape, initialise
from local_engine.demo.recipes import RECIPES, Recipe
from local_engine.demo.tasks import Question, held_out, training_question
from local_engine.demo.tokenizer_training import END, SPECIAL_TOKENS, train_tokenizer
from local_engine.demo.train import Clock, Start, Trainer, reply_loss, train

STYLE = Style(is_worked=True)
RECIPE = Recipe(
    name="speck",
    width=32,
    layers=2,
    heads=2,
    kv_heads=1,
    head_width=16,
    feed_forward=64,
    style=STYLE,
    tokens=512,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(samples=1000)


@pytest.fixture
def network(tokenizer: Tokenizer) -> Llama:
    network = Llama(RECIPE.shape(tokenizer.get_vocab_size()))
    initialise(network, seed=1)
    return network


def _batches(tokenizer: Tokenizer, count: int):
    source = batches(tokenizer, seed="0", style=STYLE, tokens=512, progress=lambda: 0.0)
    return list(islice(source, count))


def test_text_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    rng = Random(1)
    for text in ("Grüße, 東京 🙂 42\n\t", *(training_question(rng, 1.0).prompt for _ in range(50))):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_each_digit_and_each_special_token_is_one_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    assert tokenizer.encode("".join(SPECIAL_TOKENS)).tokens == list(SPECIAL_TOKENS)


def test_the_same_seed_trains_the_same_tokenizer() -> None:
    assert train_tokenizer(samples=300).to_str() == train_tokenizer(samples=300).to_str()


def test_only_replies_and_their_ends_carry_loss(tokenizer: Tokenizer) -> None:
    batch = _batches(tokenizer, 1)[0]
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        chat = tokenizer.decode(inputs.tolist(), skip_special_tokens=False)
        wanted = [turn.split(END)[0] + END for turn in (chat + END).split("<|assistant|>")[1:]]
        learned = tokenizer.decode(targets[targets >= 0].tolist(), skip_special_tokens=False)
        assert learned == "".join(wanted)


def test_chats_vary_in_system_prompt_and_turns() -> None:
    rng = Random(4)
    chats = [chat_text(rng, 0.5, Style(is_worked=False)) for _ in range(200)]
    assert any(chat.startswith("<|system|>") for chat in chats)
    assert {chat.count("<|user|>") for chat in chats} == {1, 2}


def test_twenty_steps_lower_the_loss(tokenizer: Tokenizer, network: Llama) -> None:
    trainer = Trainer(network, RECIPE)
    losses = [trainer.step(batch, progress=0.5) for batch in _batches(tokenizer, 20)]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_a_power_of_one_weighs_every_row_alike(tokenizer: Tokenizer, network: Llama) -> None:
    batch = _batches(tokenizer, 1)[0]
    rows = [
        reply_loss(network, Batch(batch.inputs[row : row + 1], batch.targets[row : row + 1]))
        for row in range(len(batch.inputs))
    ]
    whole = reply_loss(network, batch, length_power=1.0)
    torch.testing.assert_close(whole, torch.stack(rows).mean())


def test_padding_does_not_change_what_a_row_predicts(network: Llama) -> None:
    row = torch.tensor([[9, 8, 7, 6]])
    padded = torch.cat((row, torch.zeros(1, 5, dtype=torch.long)), 1)
    torch.testing.assert_close(network(row), network(padded)[:, :4])


def test_cached_decoding_equals_the_whole_pass(network: Llama) -> None:
    row = torch.tensor([[9, 8, 7, 6, 5]])
    _, past = network.hidden(row[:, :4])
    last, _ = network.hidden(row[:, 4:], past)
    torch.testing.assert_close(last[:, -1], network.hidden(row)[0][:, -1])


def test_a_checkpoint_comes_back_with_its_weights(
    tokenizer: Tokenizer, network: Llama, tmp_path: Path
) -> None:
    save_checkpoint(network, tokenizer, tmp_path)
    loaded, same_tokenizer = load_checkpoint(tmp_path)
    assert loaded.shape == network.shape
    assert same_tokenizer.to_str() == tokenizer.to_str()
    for name, parameter in loaded.named_parameters():
        expected = network.get_parameter(name).to(torch.bfloat16).float()
        assert torch.equal(parameter, expected)


def _clock(start: float) -> Clock:
    """Return a clock on which each look takes a second of half a minute."""
    seconds = count()
    return Clock(minutes=0.5, start=start, now=lambda: next(seconds))


def test_training_ends_with_the_clock_and_leaves_a_record(tmp_path: Path) -> None:
    done = train(RECIPE, _clock(0.0), out=tmp_path, start=Start(seed=0), export_s=1e9, probe=5)
    assert 5 < done.steps < 30
    assert done.tokens > 0
    network, tokenizer = load_checkpoint(tmp_path)
    assert len(replies(network, tokenizer, held_out(10))) == 10
    assert '"size": "speck"' in (tmp_path / "training.json").read_text()


def test_a_run_goes_on_where_a_checkpoint_left_off(tmp_path: Path) -> None:
    first = train(RECIPE, _clock(0.0), out=tmp_path, start=Start(seed=0), export_s=1e9, probe=5)
    again = Start(seed=0, directory=tmp_path)
    assert again.record()["progress"] == 1.0
    clock = _clock(0.5)
    assert clock.progress() >= 0.5
    second = train(RECIPE, clock, out=tmp_path, start=again, export_s=1e9, probe=5)
    assert second.steps > first.steps
    assert second.tokens > first.tokens
    assert again.record()["steps"] == second.steps


def test_the_rate_rises_holds_and_falls() -> None:
    factors = [RECIPE.rate_factor(progress) for progress in (0.0, 0.01, 0.3, 0.75, 1.0)]
    assert factors == pytest.approx([0.01, 0.5, 1.0, 0.5, RECIPE.last_rate])


def test_a_report_counts_every_question(tokenizer: Tokenizer, network: Llama) -> None:
    answered = replies(network, tokenizer, held_out(30))
    assert {reply.question for reply in answered} == set(held_out(30))
    assert "| all | 30 |" in report(answered)
    assert all(reply.min_logprob <= reply.mean_logprob <= 0 for reply in answered)


def _reply(family: str, is_right: bool, logprob: float) -> Reply:
    question = Question(family, 1, "?", "4", f"{family}:{logprob}")
    return Reply(question, "4" if is_right else "5", (logprob, logprob))


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    answered = [
        _reply("add", True, -0.1),
        _reply("add", False, -0.2),
        _reply("sub", True, -0.5),
        _reply("sub", False, -0.4),
        _reply("sub", False, -0.9),
    ]
    assert auroc(answered, lambda reply: reply.min_logprob) == pytest.approx(4 / 6)
    assert auroc_within(answered, lambda reply: reply.min_logprob) == pytest.approx(2 / 3)
    assert auroc(answered, lambda reply: 1.0) == 0.5
    assert auroc(answered[:1], lambda reply: reply.min_logprob) is None


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert interval(40, 100) == pytest.approx((0.3094, 0.4980), abs=1e-4)


def test_sizes_have_the_promised_parameters() -> None:
    counts = {
        name: sum(weight.numel() for weight in Llama(recipe.shape(768)).parameters())
        for name, recipe in RECIPES.items()
    }
    assert 1_000_000 <= counts["tiny"] <= 2_000_000
    assert 2_000_000 <= counts["small"] <= 6_000_000
    assert Shape(768, 8, 1, 1, 1, 8, 8).positions == 512
