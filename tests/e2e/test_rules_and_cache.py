from __future__ import annotations

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, DEAR, KEPT, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
async def gateway(tmp_path):
    async with ScriptedUpstream(Says("small")) as small, ScriptedUpstream(Says("large")) as large:
        models = {"small": remote(small.url, price=CHEAP), "large": remote(large.url, price=DEAR)}
        rules = [{"when": {"tag": "hard"}, "model": "large"}]
        text = policy(models, {"auto": {"model": "small", "rules": rules, "cache": KEPT}})
        async with serving(text, tmp_path) as it:
            yield it


async def test_equal_questions_that_a_rule_sends_to_other_models_share_no_answer(gateway):
    answers = []
    for tags in ([], ["hard"], [], ["hard"], ["other"]):
        response = await gateway.chat("the same", frugal={"tags": tags})
        said = response.json()["choices"][0]["message"]["content"]
        answers.append((said, response.headers["x-cache"]))

    assert answers == [
        ("small", "miss"),
        ("large", "miss"),
        ("small", "exact"),
        ("large", "exact"),
        ("small", "exact"),
    ]
