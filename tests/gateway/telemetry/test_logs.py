from __future__ import annotations

import json
import logging
import sys

import pytest

from gateway.telemetry.logs import FIELDS, REQUEST_ID, Lines
from gateway.telemetry.secrets import blotted
from tests.support.gateway_app import serving
from tests.support.policies import one_model
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


def _event(message, *args, exc_info=None, **extra):
    record = logging.LogRecord("gateway.x", logging.WARNING, "f", 1, message, args, exc_info)
    for name, value in extra.items():
        setattr(record, name, value)
    return record


def test_an_event_is_a_json_object_with_its_request():
    token = REQUEST_ID.set("req_1")
    line = json.loads(Lines(as_json=True).format(_event("%s is %d", "tea", 1, fields={"cups": 2})))
    REQUEST_ID.reset(token)

    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "gateway.x",
        "message": "tea is 1",
        "request_id": "req_1",
        "cups": 2,
    }


def test_an_event_is_one_line_of_text_whatever_a_client_wrote():
    line = Lines(as_json=False).format(_event("odd: %s", "a\nERROR forged", fields={"n": 1}))

    assert line.endswith("WARNING gateway.x odd: a\\nERROR forged n=1")


@pytest.mark.parametrize("as_json", [False, True])
def test_credentials_are_blotted_in_messages_and_tracebacks(as_json):
    try:
        raise ValueError("Authorization: Bearer abcdefgh12345678")
    except ValueError:
        told = sys.exc_info()
    line = Lines(as_json=as_json).format(
        _event("refused sk-client-0123456789abcdef", exc_info=told)
    )

    assert "0123456789abcdef" not in line
    assert "abcdefgh12345678" not in line
    assert "[secret]" in line
    assert "ValueError" in line


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("postgresql://me:word@host/db", "postgresql://[secret]@host/db"),
        ("key AKIAABCDEFGHIJKLMNOP.", "key [secret]."),
        ("ghp_abcdefghijklmnopqrstuvwx", "[secret]"),
        ("risk-taking in sk-etches", "risk-taking in sk-etches"),
        ("a bearer of news", "a bearer of news"),
        ("http://host:80/path@x", "http://host:80/path@x"),
    ],
)
def test_what_looks_like_a_credential_is_blotted_and_nothing_else(written, shown):
    assert blotted(written) == shown


async def test_each_request_has_a_line_where_the_policy_asks_for_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="gateway.requests")
    async with ScriptedUpstream(Says("words of an answer")) as upstream:
        whole = json.loads(one_model(upstream.url)) | {"telemetry": {"logs": {"requests": True}}}
        async with serving(json.dumps(whole), tmp_path) as gateway:
            response = await gateway.chat("words of a question")

    (told,) = [getattr(r, FIELDS) for r in caplog.records if r.name == "gateway.requests"]
    assert told["request_id"] == response.headers["x-request-id"]
    assert told["cost_usd"] == response.headers["x-frugal-cost-usd"]
    assert "words" not in json.dumps(told)
