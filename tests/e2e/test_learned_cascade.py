"""A learned cascade over HTTP, from its cold start on."""

from __future__ import annotations

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

SURE = Says("#### 42", tokens=(10, 3), logprobs=[-0.01, -0.02, -0.05], name="small-up")
UNSURE = Says("#### 41", tokens=(10, 3), logprobs=[-0.1, -3.0, -0.1], name="small-up")
BEST = Says("#### 42", tokens=(11, 4), name="large-up")


@pytest.fixture
async def large():
    async with ScriptedUpstream(BEST) as server:
        yield server


def learned(small, large, **cascade):
    return two_tiers(small.url, large.url, cascade={"confidence": "learned", **cascade})


@pytest.mark.parametrize("stream", [False, True])
async def test_sure_draft_is_served_from_the_first_request_on(tmp_path, large, stream):
    async with (
        ScriptedUpstream(SURE) as small,
        serving(learned(small, large), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=stream)

    assert response.headers["x-frugal-path"] == "small:0.98:accepted"
    assert not large.requests


async def test_doubtful_draft_goes_on_to_the_reference(tmp_path, large):
    async with (
        ScriptedUpstream(UNSURE) as small,
        serving(learned(small, large), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.headers["x-frugal-path"] == "small:0.05:escalated,large:served"
    (line, _) = gateway.books.lines(gateway.books.entry()["request_id"])
    assert "least likely token 0.05" in line["reason"]


async def test_floor_without_a_certificate_is_answered_by_the_reference(tmp_path, large):
    target = {"max_quality_loss": 0.02}
    async with (
        ScriptedUpstream(SURE) as small,
        serving(learned(small, large, target=target), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.headers["x-frugal-path"] == "large:served"
    assert not small.requests
