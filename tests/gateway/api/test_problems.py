"""Whatever goes wrong beside the hot path, OpenAI's clients can read it."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.problems import answer_in_envelopes
from gateway.errors import LedgerUnavailable


@pytest.fixture
def app():
    made = FastAPI()
    answer_in_envelopes(made)

    @made.get("/ours")
    def ours() -> None:
        raise LedgerUnavailable("later", retry_after="3")

    @made.get("/bug")
    def bug() -> None:
        raise KeyError("a secret")

    @made.get("/number")
    def number(count: int) -> int:
        return count

    return made


async def _get(app, path, method="GET"):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/ours", "GET", 503, "ledger_unavailable"),
        ("/bug", "GET", 500, None),
        ("/number?count=x", "GET", 400, None),
        ("/nothing", "GET", 404, "not_found"),
        ("/ours", "POST", 405, "method_not_allowed"),
    ],
)
async def test_every_error_is_an_envelope(app, path, method, status, code):
    answer = await _get(app, path, method)

    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert "secret" not in answer.text


async def test_our_errors_keep_their_retry_after(app):
    assert (await _get(app, "/ours")).headers["retry-after"] == "3"


async def test_a_parameter_of_the_wrong_kind_is_named(app):
    assert (await _get(app, "/number?count=x")).json()["error"]["param"] == "count"
