"""What an upstream may do wrong, as the client sees it and as the ledger accounts for it."""

from __future__ import annotations

import socket

import pytest

from tests.support.gateway_app import events_of, serving, text_of
from tests.support.policies import one_model
from tests.support.replies import Says, refusal
from tests.support.scripted_upstream import (
    FIN,
    RST,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
    event,
    stream,
)

ANSWER = Says("one two three four", tokens=(10, 4))
BOTH = pytest.mark.parametrize("stream", [False, True])


async def _asked(script, folder, *, stream=False, **route):
    """Return the gateway's answer to an upstream's script, its ledger row, and the same again."""
    async with (
        ScriptedUpstream(script if callable(script) else [script]) as upstream,
        serving(one_model(upstream.url, **route), folder) as gateway,
    ):
        response = await gateway.chat(stream=stream)
        row = gateway.books.entry()
        again = await gateway.chat(stream=stream)
        assert again.headers.get("x-cache") != "exact"
    return response, row


def _error(response):
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return error


# Before the first byte: a status


@BOTH
async def test_a_rate_limit_keeps_its_retry_after(tmp_path, stream):
    script = [refusal("429 Too Many Requests", "slow down", retry_after="13")]
    response, row = await _asked(script, tmp_path, stream=stream)

    assert response.status_code == 429
    assert response.headers["retry-after"] == "13"
    assert _error(response)["code"] == "rate_limit_exceeded"
    assert (row["state"], row["cost_nano_usd"]) == ("failed", 0)


@BOTH
async def test_a_context_that_is_too_long_keeps_its_code(tmp_path, stream):
    message = "This model's maximum context length is 10 tokens."
    script = [refusal("400 Bad Request", message, code="context_length_exceeded")]
    response, _ = await _asked(script, tmp_path, stream=stream)

    assert response.status_code == 400
    error = _error(response)
    assert error["code"] == "context_length_exceeded"
    assert error["message"] == message
    assert error["type"] == "invalid_request_error"


@BOTH
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_not_followed(tmp_path, stream, status):
    async with ScriptedUpstream(ANSWER) as trap:
        script = [answer(b"", status=status, headers={"location": trap.url + "/chat/completions"})]
        response, _ = await _asked(script, tmp_path, stream=stream)

        assert trap.connections == 0
    assert response.status_code == 502
    assert "redirect" in _error(response)["message"]


@BOTH
async def test_an_error_within_a_200_is_a_failure(tmp_path, stream):
    script = [answer({"error": {"message": "model overloaded", "code": "overloaded"}})]
    response, row = await _asked(script, tmp_path, stream=stream)

    assert response.status_code == 502
    assert _error(response)["code"] == "overloaded"
    assert row["state"] == "failed"


@BOTH
@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error", "404 Not Found"])
async def test_html_never_leaks(tmp_path, stream, status):
    page = b"<html><body>secret-host-17 stack trace</body></html>"
    script = [answer(page, status=status, content_type="text/html")]
    response, _ = await _asked(script, tmp_path, stream=stream)

    assert response.status_code in (502, 503)
    assert b"secret-host-17" not in response.content
    assert b"<" not in response.content
    _error(response)


@BOTH
@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_the_upstreams_quarrel_with_our_key_is_not_the_clients(tmp_path, stream, status):
    script = [refusal(status, "Incorrect API key provided: sk-planted")]
    response, _ = await _asked(script, tmp_path, stream=stream)

    assert response.status_code == 502
    assert _error(response)["code"] == "upstream_credentials"
    assert b"sk-planted" not in response.content


@BOTH
async def test_an_upstream_that_hangs_is_a_504_by_the_first_token_timeout(tmp_path, stream):
    script = [Hold()] if not stream else [STREAM_HEAD, Hold()]
    response, row = await _asked(
        lambda _: script, tmp_path, stream=stream, timeouts={"first_token": "100ms"}
    )

    assert response.status_code == 504
    assert _error(response)["code"] == "upstream_timeout"
    assert row["state"] == "failed"


async def test_a_port_that_nobody_listens_on_is_a_503(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with serving(one_model(f"http://127.0.0.1:{port}/v1"), tmp_path) as gateway:
            response = await gateway.chat()

    assert response.status_code == 503
    assert _error(response)["code"] == "upstream_unavailable"
    assert gateway.books.entry()["cost_nano_usd"] == 0


@BOTH
@pytest.mark.parametrize("end", [FIN, RST], ids=["closed", "reset"])
async def test_a_connection_that_ends_without_an_answer_is_a_clean_error(tmp_path, stream, end):
    response, _ = await _asked([end], tmp_path, stream=stream)

    assert response.status_code in (502, 503)
    _error(response)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b"\xff", b"[" * 5000],
    ids=repr,
)
async def test_what_is_no_completion_is_a_502(tmp_path, body):
    response, row = await _asked([answer(body)], tmp_path)

    assert response.status_code == 502
    assert _error(response)["code"] == "upstream_protocol_error"
    assert row["state"] == "failed"


async def test_a_whole_answer_cut_short_is_a_failure_whose_bounds_hold_the_bill(tmp_path):
    whole = answer(ANSWER.body())
    response, row = await _asked([whole[:-40], FIN], tmp_path)

    assert response.status_code == 502
    assert row["estimated"]
    # The upstream had made all of it, and may bill all of it, or nothing.
    assert row["lower_nano_usd"] == 0
    assert row["upper_nano_usd"] >= 10_000 + 4 * 2_000


async def test_a_hang_may_be_billed_although_nothing_came(tmp_path):
    _, row = await _asked(lambda _: [Hold()], tmp_path, timeouts={"first_token": "100ms"})

    assert row["estimated"]
    assert row["lower_nano_usd"] == 0
    assert row["upper_nano_usd"] >= 10_000 + 4 * 2_000


# After the first byte: an event


BROKEN = {
    "closed": [FIN],
    "reset": [RST],
    "ended without a finish": [b"0\r\n\r\n"],
    "done without a finish": [chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"],
    "no JSON": [chunk(b"data: {oops\n\n"), b"0\r\n\r\n"],
    "an error event": [chunk(event({"error": {"message": "overloaded"}})), b"0\r\n\r\n"],
    "no chunk": [b"zz\r\n"],
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_stream_that_breaks_ends_in_an_error_event_and_nothing_made_up(tmp_path, how):
    response, row = await _asked([*ANSWER.until(2), *BROKEN[how]], tmp_path, stream=True)

    *said, last = events_of(response)
    assert response.status_code == 200
    assert text_of(said) == "one two"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert "[DONE]" not in response.text
    assert '"stop"' not in response.text
    assert row["state"] == "failed"
    assert row["estimated"]
    assert row["lower_nano_usd"] <= row["cost_nano_usd"] <= row["upper_nano_usd"]
    assert row["lower_nano_usd"] <= 10_000 + 4 * 2_000 <= row["upper_nano_usd"]


async def test_thoughts_that_nobody_saw_are_within_the_bounds_of_a_cut_stream(tmp_path):
    _, row = await _asked([*ANSWER.until(2), RST], tmp_path, stream=True)

    # A model that thinks may have written much more than what came, and nobody bounds this one.
    assert row["upper_nano_usd"] >= 100_000 * 2_000


async def test_a_stream_that_falls_silent_ends_by_the_idle_timeout(tmp_path):
    response, row = await _asked(
        lambda _: [*ANSWER.until(2), Hold()], tmp_path, stream=True, timeouts={"idle": "100ms"}
    )

    *said, last = events_of(response)
    assert text_of(said) == "one two"
    assert last["error"]["code"] == "upstream_timeout"
    assert row["state"] == "failed"


async def test_a_stream_that_breaks_after_its_usage_is_billed_by_it(tmp_path):
    tail = [chunk(ANSWER.usage_event()), FIN]
    response, row = await _asked([*ANSWER.until(2), *tail], tmp_path, stream=True)

    assert "error" in events_of(response)[-1]
    assert not row["estimated"]
    assert row["cost_nano_usd"] == row["upper_nano_usd"] == 10_000 + 8_000


async def test_a_finished_stream_without_its_done_is_whole(tmp_path):
    script = stream(*ANSWER.events(), is_done=False)
    async with (
        ScriptedUpstream([script]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True)
        again = await gateway.chat(stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    assert again.headers["x-cache"] == "exact"


async def test_a_finished_stream_that_reports_no_usage_is_estimated(tmp_path):
    *said, _ = ANSWER.events()
    async with (
        ScriptedUpstream([stream(*said)]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    row = gateway.books.entry()
    assert row["state"] == "settled"
    assert row["estimated"]
    assert 0 < row["lower_nano_usd"] <= row["cost_nano_usd"] <= row["upper_nano_usd"]


async def test_the_gateway_serves_on_after_every_fault(tmp_path):
    scripts = [[RST], [answer(b"no")], [*ANSWER.until(1), FIN], [refusal("503 Busy")]]

    def play(received):
        return scripts.pop(0) if scripts else ANSWER(received)

    async with (
        ScriptedUpstream(play) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        for _ in range(4):
            await gateway.chat(stream=True)
        response = await gateway.chat()

    assert response.json() == ANSWER.body()
    assert [row["state"] for row in gateway.books.entries()] == ["failed"] * 4 + ["settled"]
