from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cache.semantic.cross_encoder import (
    MOST_WAITING,
    SentenceTransformerPairs,
    Verification,
    load_cross_encoder,
)
from cache.semantic.embedder import EmbedderError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "do", "i", "reset", "close", "it"]


def checkpoint(folder, labels=1):
    """Write a tiny BERT with random weights, as a hub would hold it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, num_labels=labels,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("pairs"))


def elsewhere(job, *given):
    """Do something in a thread of its own, as the cache does: threads' settings stay there."""
    with ThreadPoolExecutor(1) as worker:
        return worker.submit(job, *given).result()


class Pairs:
    """Scores by the first letter's case; waits for leave where told to."""

    def __init__(self):
        self.may_go = threading.Event()
        self.may_go.set()

    def score(self, asked, stored):
        assert self.may_go.wait(20)
        if asked == "fail":
            raise ValueError("cannot read this")
        return float("nan") if asked == "nan" else 3.0


async def loaded(verification, name="any"):
    """Ask until the model is there."""
    while (score := await verification.score(name, "a", "b")) is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return score


@pytest.fixture
def verifying():
    made = []

    def make(*given, **named):
        made.append(Verification(*given, **named))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_checkpoint_on_disk_scores_pairs_without_any_activation(folder):
    import torch

    scorer = elsewhere(load_cross_encoder, str(folder))
    row = scorer._model.tokenizer("how do i reset", "close it", return_tensors="pt")
    with torch.no_grad():
        expected = scorer._model.model(**row).logits.item()

    assert scorer.score("how do i reset", "close it") == pytest.approx(expected, abs=1e-5)
    assert scorer.score("how", "how") != scorer.score("how", "close it")


def test_its_threads_are_bounded_and_those_of_others_are_left_alone(folder):
    import torch

    def work():
        SentenceTransformerPairs(str(folder), threads=1).score("how", "close")
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert elsewhere(work) == 1
        assert elsewhere(torch.get_num_threads) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_model_with_several_labels_is_refused_by_name(tmp_path):
    with pytest.raises(EmbedderError, match="expected one score a pair, found 3 labels"):
        elsewhere(load_cross_encoder, str(checkpoint(tmp_path, labels=3)))


def test_a_folder_that_holds_no_model_is_refused_by_name(tmp_path):
    with pytest.raises(EmbedderError, match=r"no cross-encoder .* could be loaded"):
        elsewhere(load_cross_encoder, str(tmp_path))


async def test_nobody_waits_for_a_model_that_is_loading(verifying):
    may_load = threading.Event()

    def load(name):
        assert may_load.wait(20)
        return Pairs()

    verification = verifying(load)
    try:
        assert await verification.score("any", "a", "b") is None
    finally:
        may_load.set()
    assert await loaded(verification) == 3.0


async def test_a_model_that_cannot_be_had_says_so_once_and_verifies_nothing(verifying, caplog):
    def load(name):
        raise EmbedderError(f"no cross-encoder {name!r}")

    verification = verifying(load)
    while not caplog.records:
        assert await verification.score("absent", "a", "b") is None
    assert await verification.score("absent", "a", "b") is None

    assert [r.getMessage() for r in caplog.records] == [
        "answers go unverified where absent does not answer: no cross-encoder 'absent'"
    ]


@pytest.mark.parametrize("asked", ["fail", "nan"])
async def test_what_cannot_be_scored_goes_unverified(verifying, asked):
    verification = verifying(lambda name: Pairs())
    await loaded(verification)

    assert await verification.score("any", asked, "b") is None
    assert await verification.score("any", "a", "b") == 3.0


async def test_a_pair_that_takes_too_long_goes_unverified_and_no_more_wait_than_may(verifying):
    pairs = Pairs()
    verification = verifying(lambda name: pairs, deadline_s=0.01)
    pairs.may_go.clear()
    try:
        while verification._waiting < MOST_WAITING:
            assert await verification.score("any", "a", "b") is None
        assert await verification.score("any", "a", "b") is None
        assert verification._waiting == MOST_WAITING
    finally:
        pairs.may_go.set()
