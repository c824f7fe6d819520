"""What a client may do wrong, over a raw socket to the real command: a clear 4xx, nothing else."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from tests.support.clients import post, say
from tests.support.gateway_app import asking, frugal_serve
from tests.support.policies import CHEAP, policy, remote
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

ANSWER = Says("The answer is 12")
LIMIT = 200_000
KEY = "sk-client-planted-0123456789abcdef"
UPSTREAM_KEY = "sk-upstream-planted-0123456789"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with upstream_in_thread(ANSWER) as upstream:
        text = policy(
            {"large": remote(upstream.url, price=CHEAP, api_key="${UPSTREAM_KEY}")},
            {"auto": {"model": "large"}},
            server={"max_body": LIMIT},
            access={"anonymous": "loopback", "keys": [{"name": "ci", "key": KEY}]},
        )
        folder = tmp_path_factory.mktemp("bad-input")
        with frugal_serve(text, folder, env={"UPSTREAM_KEY": UPSTREAM_KEY}) as running:
            yield running


@pytest.fixture(autouse=True)
def _it_serves_on(served):
    yield
    answer = post(served.port, json.dumps(asking()).encode())
    assert answer.status == 200
    assert json.loads(answer.body) == ANSWER.body()


def _body(**members):
    return json.dumps(asking(**members)).encode()


NOT_JSON = {
    "empty": b"",
    "blank": b"  ",
    "an array": b"[]",
    "null": b"null",
    "a number": b"1",
    "a string": b'"hi"',
    "true": b"true",
    "cut": b'{"model": "auto", "messages": [',
    "two": b"{}{}",
    "NaN": b'{"model": "auto", "messages": [{"role": "user"}], "temperature": NaN}',
    "Infinity": b'{"model": "auto", "messages": [{"role": "user"}], "x": Infinity}',
    "a huge number": b'{"model": "auto", "messages": [{"role": "user"}], "x": 1e999}',
    "not UTF-8": b'{"model": "auto", "messages": [{"role": "user", "content": "\xff"}]}',
    "raw surrogates": b'{"model": "auto", "messages": [{"role": "\xed\xa0\x80"}]}',
    "lone high": rb'{"model": "auto", "messages": [{"role": "user", "content": "\ud800"}]}',
    "lone low": rb'{"model": "auto", "messages": [{"role": "user", "content": "\udc00 x"}]}',
    "NUL": rb'{"model": "auto", "messages": [{"role": "user", "content": "a\u0000b"}]}',
    "NUL in a key": rb'{"model": "auto", "messages": [{"role": "user"}], "a\u0000": 1}',
    "NUL in the model": rb'{"model": "auto\u0000", "messages": [{"role": "user"}]}',
    "deep": b'{"model": "auto", "messages": [{"role": "user"}], "x": '
    + b"[" * 1000
    + b"]" * 1000
    + b"}",
    "deep objects": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "deep and cut": b"[" * 100_000,
    "a form": b"model=auto",
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_what_is_no_json_object_is_a_400(served, what):
    answer = post(served.port, NOT_JSON[what])

    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


WRONG = {
    "model": {"model": 1},
    "model ": {"model": ""},
    "model  ": {"model": None},
    "messages": {"messages": None},
    "messages ": {"messages": []},
    "messages  ": {"messages": "hi"},
    "messages[0]": {"messages": ["hi"]},
    "messages[0].role": {"messages": [{"role": 1, "content": "x"}]},
    "messages[0].content": {"messages": [{"role": "user", "content": 1}]},
    "messages[0].content[0]": {"messages": [{"role": "user", "content": ["x"]}]},
    "stream": {"stream": "yes"},
    "stream ": {"stream": 1},
    "stream_options": {"stream": True, "stream_options": []},
    "stream_options.include_usage": {"stream_options": {"include_usage": "x"}},
    "n": {"n": 0},
    "n ": {"n": 129},
    "n  ": {"n": "1"},
    "n   ": {"n": True},
    "max_tokens": {"max_tokens": 0},
    "max_tokens ": {"max_tokens": -1},
    "max_tokens  ": {"max_tokens": 1.5},
    "max_tokens   ": {"max_tokens": 10**30},
    "max_completion_tokens": {"max_completion_tokens": "9"},
    "temperature": {"temperature": 3},
    "temperature ": {"temperature": "hot"},
    "top_p": {"top_p": 2},
    "logprobs": {"logprobs": 5},
    "top_logprobs": {"top_logprobs": 21},
    "tools": {"tools": {}},
    "tools[0]": {"tools": ["f"]},
    "response_format": {"response_format": "json"},
    "frugal": {"frugal": 1},
    "frugal ": {"frugal": {"made_up": 1}},
    "frugal.cache": {"frugal": {"cache": "on"}},
    "frugal.tags": {"frugal": {"tags": "x"}},
}


@pytest.mark.parametrize("where", WRONG)
def test_a_member_of_the_wrong_kind_is_a_400_that_names_it(served, where):
    answer = post(served.port, _body() if False else json.dumps(asking() | WRONG[where]).encode())

    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"].partition("[...]")[0].startswith(re.split(r"[ .\[]", where)[0])


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_member_is_a_400_that_names_it(served, missing):
    body = {k: v for k, v in asking().items() if k != missing}
    answer = post(served.port, json.dumps(body).encode())

    assert answer.status == 400
    assert answer.error["param"] == missing


@pytest.mark.parametrize(
    "name",
    ["api_base", "base_url", "api_key", "proxy", "custom_llm_provider", "extra_headers",
     "organization"],
)  # fmt: skip
def test_nobody_chooses_an_upstream_or_a_credential(served, name):
    answer = post(served.port, _body(**{name: "http://127.0.0.1:1"}))

    assert answer.status == 400
    assert answer.error["param"] == name
    assert "127.0.0.1:1" not in answer.error["message"]


def test_an_unknown_model_is_a_404_that_names_the_routes(served):
    answer = post(served.port, _body(model="gpt-nope"))

    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert answer.error["param"] == "model"
    assert "auto" in answer.error["message"]
    assert "large" in answer.error["message"]


# Sizes


def test_a_body_at_the_limit_is_read(served):
    body = _body(prompt="x" * (LIMIT - len(_body(prompt=""))))

    assert len(body) == LIMIT
    assert post(served.port, body).status == 200


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(served):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    answer = say(served.port, head + b"content-length: %d\r\n\r\n" % (LIMIT + 1))

    assert answer.status == 413
    assert answer.error["code"] == "payload_too_large"


def test_a_body_that_says_it_is_too_large_is_refused_although_it_is_sent(served):
    answer = post(served.port, b" " * 40 * LIMIT)

    assert answer.status == 413
    assert answer.error["code"] == "payload_too_large"


def test_a_client_that_waits_for_continue_need_not_send_a_large_body(served):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nexpect: 100-continue\r\n"
    answer = say(served.port, head + b"content-length: 99999999\r\n\r\n")

    assert answer.status == 413


def test_a_chunked_body_is_refused_once_it_has_passed_the_limit(served):
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n"
    )
    chunks = [b"%x\r\n%s\r\n" % (50_000, b" " * 50_000)] * 200
    answer = say(served.port, head + b"\r\n", *chunks)

    assert answer.status == 413
    answer.error  # noqa: B018 - it checks the envelope


def test_a_chunked_body_within_the_limit_is_read(served):
    body = _body()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n"
    )
    chunks = [b"1\r\n%c\r\n" % byte for byte in body]
    answer = say(served.port, head + b"\r\n", *chunks, b"0\r\n\r\n")

    assert answer.status == 200


def test_a_compressed_body_is_refused(served):
    answer = post(served.port, gzip.compress(_body()), content_encoding="gzip")

    assert answer.status == 400
    assert "content-encoding" in answer.error["message"]


# Paths, methods, heads


@pytest.mark.parametrize(
    "path",
    ["/", "/v2/chat/completions", "//v1/chat/completions", "/v1/chat/completions/", "/v1/../admin",
     "/admin/policy", "/metrics", "/docs", "/openapi.json", "/health/live/", "/%00", "/%ff"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_404(served, path, method):
    head = f"{method} {path} HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n"
    answer = say(served.port, head.encode(), method=method)

    assert answer.status == 404
    assert answer.error["code"] == "not_found"
    assert "evil.example" not in str(answer)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_wrong_method_is_a_405_that_allows_post(served, method):
    head = f"{method} /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    answer = say(served.port, head.encode(), method=method)

    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert answer.error["code"] == "method_not_allowed"


def test_a_wrong_method_elsewhere_is_a_405(served):
    answer = post(served.port, b"{}", path="/v1/models")

    assert answer.status == 405
    assert answer.error["code"] == "method_not_allowed"


def test_an_absolute_uri_is_served_here_and_nowhere_else(served):
    body = _body()
    head = "POST http://evil.example/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    answer = say(served.port, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    assert answer.status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]", "0.0.0.0"])
def test_a_rebound_name_gets_nothing_without_a_key(served, host):
    answer = post(served.port, _body(), host=host)

    assert answer.status == 400
    assert "Host" in answer.error["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:4000", "[::1]:80", "a.localhost"])
def test_loopback_names_are_let_in(served, host):
    assert post(served.port, _body(), host=host).status == 200


@pytest.mark.parametrize(
    "authorization",
    ["Bearer sk-wrong", "Bearer", "Bearer ", "Basic " + KEY, KEY, "Bearer " + KEY + "x", "\xff",
     "Bearer " + "x" * 5000],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_bad_key_is_a_401_and_is_not_repeated(served, authorization, path):
    method = "GET" if path == "/v1/models" else "POST"
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: {authorization}\r\n"
    answer = say(served.port, f"{head}content-length: 0\r\n\r\n".encode("latin-1"), method=method)

    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    assert "sk-" not in answer.error["message"]


def test_a_known_key_is_let_in_under_any_host(served):
    answer = post(served.port, _body(), host="llm.example", authorization=f"bearer  {KEY}")

    assert answer.status == 200


MALFORMED = {
    "both lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n"
    b"content-length: 6\r\n\r\nhello",
    "a negative length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    "a length of words": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
    "an endless length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: "
    + b"9" * 40 + b"\r\n\r\n",
    "a bad chunk": b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a space in a header's name": b"GET / HTTP/1.1\r\nho st: a\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_no_http_is_a_400_in_an_envelope(served, what):
    answer = say(served.port, MALFORMED[what])

    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["connection"] == "close"


def test_headers_without_end_are_refused(served):
    filler = b"x-filler: " + b"a" * 60_000 + b"\r\n"
    answer = say(served.port, b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n", *([filler] * 100))

    assert answer.status in (400, 431)
    answer.error  # noqa: B018 - it checks the envelope


@pytest.mark.parametrize("most", ["much", "-1", "NaN", "Infinity", "1e30", ""])
def test_a_ceiling_that_is_no_sum_is_refused(served, most):
    answer = post(served.port, _body(), **{"x-frugal-max-usd": most})

    assert answer.status == 400
    assert answer.error["param"] == "x-frugal-max-usd"


@pytest.mark.parametrize("name", ["x-frugal-deadline"])
def test_a_control_that_is_not_built_yet_is_refused_by_name(served, name):
    answer = post(served.port, _body(), **{name: "1"})

    assert answer.status == 400
    assert answer.error["param"] == name


def test_no_planted_secret_is_in_the_log(served):
    said = served.said()

    assert KEY not in said
    assert UPSTREAM_KEY not in said
    assert "Traceback" not in said
