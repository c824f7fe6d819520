from __future__ import annotations

import json

import pytest

from gateway.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.providers.failures import read_error
from gateway.providers.openai import OpenAIProvider
from policies.schema import Model
from tests.support.chat import call, collect
from tests.support.scripted_upstream import ScriptedUpstream, answer

SECRET = "sk-planted-secret"


async def failure(status, body=b"", *, stream=False, kind="application/json", **headers):
    """Return the error that an answer of this status becomes."""
    script = [answer(body, status=f"{status} X", content_type=kind, headers=headers)]
    async with ScriptedUpstream([script]) as upstream:
        model = Model.model_validate(
            {"provider": "openai", "base_url": upstream.url, "api_key": SECRET}
        )
        provider = OpenAIProvider.from_model("big", model)
        with pytest.raises(ProviderError) as caught:
            await collect(provider, call(stream=stream))
        await provider.aclose()
    assert SECRET not in str(caught.value.body())
    assert "<" not in caught.value.message
    return caught.value


def error_body(message="said so", **members):
    return {"error": {"message": message, "type": "t", "param": None, "code": None, **members}}


@pytest.mark.parametrize("stream", [False, True])
async def test_rejection_keeps_what_the_upstream_said(stream):
    body = error_body("too long by 7", code="context_length_exceeded", param="messages")
    error = await failure(400, body, stream=stream)

    assert isinstance(error, ProviderRejected)
    assert error.status == 400
    assert error.body()["error"] == {
        "message": "too long by 7",
        "type": "t",
        "param": "messages",
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "This model's maximum context length is 8", "code": 400},
        error_body("request (9) exceeds", type="exceed_context_size_error", code=400),
    ],
)
async def test_prompt_that_is_too_long_gets_openais_code_in_other_dialects_too(body):
    assert (await failure(400, body)).code == "context_length_exceeded"


@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422])
async def test_other_faults_of_the_request_keep_their_status(status):
    error = await failure(status, error_body("no", code="c"))

    assert (type(error), error.status, error.code) == (ProviderRejected, status, "c")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, "7"),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "Wed, 21 Oct 2026 07:28:00 GMT"),
        ({"retry-after-ms": "1200"}, "2"),
        ({"retry-after": "3", "retry-after-ms": "2500"}, "3"),
        ({"retry-after": "x" * 100}, None),
        ({"retry-after-ms": "soon"}, None),
    ],
)
async def test_rate_limit_keeps_when_to_come_back(headers, expected):
    error = await failure(429, error_body(code="insufficient_quota"), **headers)

    assert isinstance(error, ProviderRateLimited)
    assert error.retry_after == expected
    assert error.code == "insufficient_quota"


async def test_rate_limit_without_a_code_has_ours():
    assert (await failure(429)).code == "rate_limit_exceeded"


@pytest.mark.parametrize("status", [401, 402, 403, 407])
async def test_refused_credentials_are_our_trouble_and_not_the_clients(status):
    error = await failure(status, error_body(f"Incorrect API key provided: {SECRET}"))

    assert (type(error), error.status) == (ProviderError, 502)
    assert error.code == "upstream_credentials"
    assert "models.big.api_key" in error.message
    assert "Incorrect" not in error.message


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
async def test_upstream_trouble_is_unavailable_without_its_page(status):
    error = await failure(status, b"<html>nginx</html>", kind="text/html")

    assert isinstance(error, ProviderUnavailable)
    assert str(status) in error.message
    assert "nginx" not in error.message


async def test_unavailable_upstream_may_say_when_to_come_back():
    assert (await failure(503, **{"retry-after": "9"})).retry_after == "9"
    assert (await failure(500, **{"retry-after": "9"})).retry_after is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_broken_and_never_followed(status):
    async with ScriptedUpstream([[answer(b"")]]) as trap:
        error = await failure(status, location=trap.url)

        assert isinstance(error, ProviderProtocolError)
        assert "base_url" in error.message
        assert trap.connections == 0


@pytest.mark.parametrize("status", [201, 202, 206])
async def test_other_success_is_no_answer(status):
    assert isinstance(await failure(status, b"{}"), ProviderProtocolError)


@pytest.mark.parametrize("status", [404, 405])
async def test_wrong_address_is_named_as_such(status):
    error = await failure(status, b"<h1>Not Found</h1>", kind="text/html")

    assert (type(error), error.status) == (ProviderError, 502)
    assert "models.big.base_url" in error.message


async def test_request_timeout_of_the_upstream_is_a_timeout():
    assert isinstance(await failure(408), ProviderTimeout)


async def test_key_echoed_in_a_rejection_is_masked():
    error = await failure(400, error_body(f"bad header Bearer {SECRET}"))

    assert error.message == "bad header Bearer ***"


async def test_rejection_too_large_to_read_is_still_one():
    error = await failure(400, b'{"error": {"message": "' + b"x" * 300_000 + b'"}}')

    assert isinstance(error, ProviderRejected)
    assert "refused the request (400)" in error.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "m"}}, "m"),
        ({"error": "m"}, "m"),
        ({"message": "m", "object": "error"}, "m"),
        ({"detail": "m"}, "m"),
        ({"detail": [{"loc": ["body"], "msg": "x"}]}, ""),
        ({"error": {"message": ["m"]}}, ""),
        ({"error": {"message": "two\nlines\r\n\tand\x00more"}}, "two lines andmore"),
        ({"error": {"message": "x" * 3000}}, "x" * 2000 + "\u2026"),
        ({"error": [1]}, ""),
        ({}, ""),
        ([], ""),
        ("m", ""),
    ],
)
def test_error_body_is_read_in_every_dialect_and_bounded(body, message):
    assert read_error(json.dumps(body).encode(), None).message == message


@pytest.mark.parametrize("body", [b"", b"\xff", b"<p>", b'{"error"', b"[" * 5000])
def test_what_is_no_error_body_tells_nothing(body):
    told = read_error(body, None)

    assert (told.message, told.type, told.code, told.param) == ("", None, None, None)
