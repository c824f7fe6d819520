from __future__ import annotations

import asyncio

import numpy as np

from gateway.features import Embedding, Features

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {
        "role": "user",
        "content": [{"type": "text", "text": "How"}, {"type": "text", "text": "far?"}],
    },
]


class Counting:
    """Gives one vector to whoever asks, and counts; waits for leave where told to."""

    def __init__(self):
        self.asked = []
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def __call__(self, text):
        self.asked.append(text)
        await self.may_go.wait()
        return np.ones(3, np.float32)


def made_by(embed):
    return Embedding(lambda: "counting", embed)


async def test_the_question_is_the_last_user_turn():
    assert Features(TURNS, made_by(Counting())).question == "How\nfar?"
    assert Features(TURNS[:3]).question == "Hello"
    assert Features(TURNS[:1]).question == ""


async def test_the_vector_is_computed_once_for_all_who_ask():
    embed = Counting()
    features = Features(TURNS, made_by(embed))

    one, other = await asyncio.gather(features.vector(), features.vector())

    assert one is other is await features.vector()
    assert embed.asked == ["How\nfar?"]


async def test_nothing_is_computed_where_nobody_asks_or_nothing_was_said():
    embed = Counting()
    Features(TURNS, made_by(embed))

    assert await Features(TURNS[:1], made_by(embed)).vector() is None
    assert embed.asked == []


async def test_one_that_leaves_does_not_stop_the_work_for_others():
    embed = Counting()
    embed.may_go.clear()
    features = Features(TURNS, made_by(embed))
    leaver = asyncio.create_task(features.vector())
    other = asyncio.create_task(features.vector())
    await asyncio.sleep(0)
    leaver.cancel()
    embed.may_go.set()

    assert (await other).shape == (3,)
    assert leaver.cancelled()


async def test_a_vector_is_known_once_it_has_been_computed():
    features = Features(TURNS, made_by(Counting()))

    assert features.known_vector is None
    assert features.known_vector is not await features.vector()
    assert features.known_vector is await features.vector()
    assert features.embedder == "counting"


async def test_without_an_embedding_there_are_words_and_no_vector():
    features = Features(TURNS)

    assert await features.vector() is None
    assert features.known_vector is None
    assert (features.question, features.embedder) == ("How\nfar?", "")
