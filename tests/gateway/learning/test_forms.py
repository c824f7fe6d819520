"""Schemas and tools of live requests: judged in drafts, and labelled in audits."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.scripted_upstream import ScriptedUpstream, answer

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]}
FORM = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
}


def said(content=None, *, arguments=None):
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    message = {"role": "assistant", "content": content}
    if arguments is not None:
        message["tool_calls"] = [call]
    finish = "stop" if arguments is None else "tool_calls"
    return answer({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })  # fmt: skip


async def asked(tmp_path, small, large, **members):
    """Return what was served, its path, and the outcomes that were learnt of it."""
    cascade = {"tiers": ["small", "large"], "confidence": "learned", "audit": {"share": 1}}
    async with ScriptedUpstream([[small]]) as one, ScriptedUpstream([[large]]) as other:
        models = {"small": remote(one.url), "large": remote(other.url)}
        async with serving(policy(models, {"auto": {"cascade": cascade}}), tmp_path) as gateway:
            response = await gateway.chat(**members)
            assert response.status_code == 200, response.text
            path = response.headers["x-frugal-path"]
            async with asyncio.timeout(20):
                while not (rows := await _drafts(gateway)):
                    pass
    message = response.json()["choices"][0]["message"]
    return message, path, rows


async def _drafts(gateway):
    found = (await gateway.admin.get("/admin/routes/auto/quality")).json()
    return found["labels"] or found["models"]


@pytest.mark.parametrize(
    ("small", "large", "members"),
    [
        (said('{"a": "one"}'), said('{"a": 1}'), FORM),
        (said(arguments='{"a": "one"}'), said(arguments='{"a": 1}'), TOOLS),
    ],
)
async def test_a_draft_that_breaks_the_form_is_escalated_and_labelled(
    tmp_path, small, large, members
):
    message, path, labels = await asked(tmp_path, small, large, **members)

    assert ":escalated,large" in path
    assert '"a": 1' in json.dumps(message).replace("\\", "")
    assert labels == {"schema": 1}


async def test_equal_tool_calls_are_labelled_by_what_they_say(tmp_path):
    small, large = said(arguments='{"a":1}'), said(arguments='{"a": 1}')
    _, path, labels = await asked(tmp_path, small, large, **TOOLS)

    assert path.startswith("small:")
    assert labels == {"exact": 1}
