from __future__ import annotations

import asyncio

import numpy as np

from gateway.features import Features

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


async def test_the_question_is_the_last_user_turn():
    assert Features(TURNS, Counting()).question == "How\nfar?"
    assert Features(TURNS[:3], Counting()).question == "Hello"
    assert Features(TURNS[:1], Counting()).question == ""


async def test_the_vector_is_computed_once_for_all_who_ask():
    embed = Counting()
    features = Features(TURNS, embed)

    one, other = await asyncio.gather(features.vector(), features.vector())

    assert one is other is await features.vector()
    assert embed.asked == ["How\nfar?"]


async def test_nothing_is_computed_where_nobody_asks_or_nothing_was_said():
    embed = Counting()
    Features(TURNS, embed)

    assert await Features(TURNS[:1], embed).vector() is None
    assert embed.asked == []


async def test_one_that_leaves_does_not_stop_the_work_for_others():
    embed = Counting()
    embed.may_go.clear()
    features = Features(TURNS, embed)
    leaver = asyncio.create_task(features.vector())
    other = asyncio.create_task(features.vector())
    await asyncio.sleep(0)
    leaver.cancel()
    embed.may_go.set()

    assert (await other).shape == (3,)
    assert leaver.cancelled()
