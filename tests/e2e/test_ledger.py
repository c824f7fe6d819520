"""The ledger over the wire: what was answered is in it, to the token, whatever happens."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import threading

import httpx
import pytest

from tests.support.gateway_app import asking, frugal_serve, serving
from tests.support.policies import one_model, policy, remote
from tests.support.replies import Says, in_turn
from tests.support.scripted_upstream import FIN, RST, ScriptedUpstream
from tests.support.scripted_upstream import answer as answering
from tests.support.threaded import upstream_in_thread

PRICE = {
    "input_per_mtok_usd": 0.25,
    "cached_input_per_mtok_usd": 0.025,
    "output_per_mtok_usd": 2,
    "reasoning_per_mtok_usd": 3,
}


class Counting:
    """A model whose every answer takes other tokens, and that keeps the bill."""

    def __init__(self) -> None:
        self.billed = {}
        self._random = random.Random(7)

    def __call__(self, received):
        prompt = received.json["messages"][0]["content"]
        given, made = self._random.randint(100, 5_000), self._random.randint(10, 900)
        self.billed[prompt] = (given, made)
        return Says(f"re {prompt}", tokens=(given, made))(received)


async def test_every_answer_has_one_entry_that_equals_the_bill(tmp_path):
    model = Counting()
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url, price=PRICE), tmp_path) as gateway,
    ):
        answers = await asyncio.gather(
            *(gateway.chat(f"q{number}", stream=number % 2 == 0) for number in range(60))
        )
        rows = {row["request_id"]: row for row in gateway.books.entries()}

    assert {answer.headers["x-request-id"] for answer in answers} == set(rows)
    for number, answer in enumerate(answers):
        given, made = model.billed[f"q{number}"]
        row = rows[answer.headers["x-request-id"]]
        assert (row["usage"]["input"], row["usage"]["output"]) == (given, made)
        assert row["cost_nano_usd"] == given * 250 + made * 2_000
        assert row["lower_nano_usd"] == row["cost_nano_usd"] == row["upper_nano_usd"]
        assert not row["estimated"]


async def test_cached_and_reasoning_tokens_are_priced_apart(tmp_path):
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 20},
    }

    class Reasoning(Says):
        @property
        def usage(self):
            return usage

    async with (
        ScriptedUpstream(Reasoning("so")) as upstream,
        serving(one_model(upstream.url, price=PRICE), tmp_path) as gateway,
    ):
        await gateway.chat()

    row = gateway.books.entry()
    assert row["usage"] == {
        "input": 40, "cached_input": 60, "cache_write": 0, "output": 30, "reasoning": 20
    }  # fmt: skip
    assert row["cost_nano_usd"] == 40 * 250 + 60 * 25 + 30 * 2_000 + 20 * 3_000


async def test_a_refused_request_is_no_entry(tmp_path):
    async with serving(one_model("http://127.0.0.1:1/v1"), tmp_path) as gateway:
        await gateway.chat(model="nope")
        await gateway.chat(temperature=9)

        assert gateway.books.entries() == []


async def test_tags_tenant_and_key_are_written_down(tmp_path):
    key = {"name": "ci", "tenant": "red", "key": "sk-0123456789abcdef", "tags": ["nightly"]}
    async with ScriptedUpstream(Says("x")) as upstream:
        text = policy({"large": remote(upstream.url)}, access={"keys": [key]})
        async with serving(text, tmp_path) as gateway:
            headers = {"authorization": f"Bearer {key['key']}"}
            members = {"frugal": {"tags": ["eval"]}}
            response = await gateway.chat(model="large", headers=headers, **members)

    row = gateway.books.entry()
    assert (row["tenant"], row["key"]) == ("red", "ci")
    with sqlite3.connect(gateway.books.path) as connection:
        (tags,) = connection.execute("SELECT tags FROM entry").fetchone()
    connection.close()
    assert json.loads(tags) == ["eval", "nightly"]
    assert response.status_code == 200


async def test_a_locked_ledger_is_a_503_and_comes_back_by_itself(tmp_path):
    async with (
        ScriptedUpstream(Says("x")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        lock = sqlite3.connect(gateway.books.path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        first = await gateway.chat("first")
        second = await gateway.chat("second")
        unready = await gateway.client.get("/health/ready")
        lock.execute("ROLLBACK")
        lock.close()
        async with asyncio.timeout(20):
            while (await gateway.client.get("/health/ready")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        third = await gateway.chat("third")

    assert [r.status_code for r in (first, second, third)] == [503, 503, 200]
    assert first.json()["error"]["code"] == "ledger_unavailable"
    assert unready.status_code == 503
    assert len(upstream.requests) == 2, "what cannot be recorded is not started"
    # The first was paid for although it was not served, and so it is written after all.
    assert len(gateway.books.entries()) == 2


async def test_a_stream_whose_entry_cannot_be_written_never_says_done(tmp_path):
    async with (
        ScriptedUpstream(Says("one two")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        lock = sqlite3.connect(gateway.books.path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        response = await gateway.chat(stream=True)
        lock.close()

    assert response.status_code == 200
    assert "[DONE]" not in response.text
    assert "ledger_unavailable" in response.text


# kill -9


class Load:
    """Threads that ask without pause and remember what was answered whole."""

    def __init__(self, url: str, round_: int) -> None:
        self.whole: list[str] = []
        self.begun = threading.Event()
        self._url = url
        self._round = round_
        self._threads = [
            threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(4)
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "whoever answers it should have been killed"

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, verify=False) as client:
            for count in range(100_000):
                is_stream = (number + count) % 2 == 0
                body = asking(f"{self._round}-{number}-{count}", stream=is_stream)
                try:
                    response = client.post("/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                if not is_stream or response.text.endswith("data: [DONE]\n\n"):
                    self.whole.append(response.headers["x-request-id"])
                if len(self.whole) >= 20:
                    self.begun.set()


@pytest.mark.parametrize(("workers", "rounds"), [("1", 3), ("2", 1)])
def test_what_was_answered_before_kill_9_is_in_the_ledger(tmp_path, workers, rounds):
    answered = []
    with upstream_in_thread(Says("one two three")) as upstream:
        text = one_model(upstream.url)
        for round_ in range(rounds):
            with frugal_serve(text, tmp_path, "--workers", workers) as served:
                load = Load(served.url, round_)
                assert load.begun.wait(30)
                assert served.stop(signal.SIGKILL) == -signal.SIGKILL
                load.join()
                answered += load.whole
        with frugal_serve(text, tmp_path) as served:
            rows = {row["request_id"]: row for row in served.books.entries()}

    assert len(answered) >= 20 * rounds
    assert set(answered) <= set(rows)
    assert all(rows[each]["state"] == "settled" for each in answered)


@pytest.mark.parametrize("script", [[RST], [FIN], [b"HTTP/1.1 200 OK\r\n", RST],
                                    [answering({}, status="504 Gateway Timeout")]])  # fmt: skip
async def test_a_call_that_broke_off_may_have_been_billed(tmp_path, script):
    async with (
        ScriptedUpstream([script]) as upstream,
        serving(one_model(upstream.url, price=PRICE), tmp_path) as gateway,
    ):
        response = await gateway.chat("hello", max_tokens=10)
        row = gateway.books.entry()

    assert response.status_code >= 500
    assert (row["state"], row["estimated"], row["lower_nano_usd"]) == ("failed", True, 0)
    assert row["upper_nano_usd"] >= len("hello") * 250 + 10 * 3_000


@pytest.mark.parametrize(
    "script", [[answering({}, status="500 Oh")], [answering({}, status="503 No")]]
)
async def test_a_call_that_was_refused_was_not_billed(tmp_path, script):
    async with (
        ScriptedUpstream([script]) as upstream,
        serving(one_model(upstream.url, price=PRICE), tmp_path) as gateway,
    ):
        await gateway.chat("hello")
        row = gateway.books.entry()

    assert (row["upper_nano_usd"], row["estimated"]) == (0, False)


async def test_a_call_that_reached_nobody_was_not_billed(tmp_path):
    async with serving(one_model("http://127.0.0.1:1/v1", price=PRICE), tmp_path) as gateway:
        await gateway.chat("hello")
        row = gateway.books.entry()

    assert (row["upper_nano_usd"], row["estimated"]) == (0, False)


@pytest.mark.parametrize("durability", ["", "?synchronous=full"])
async def test_a_call_sent_again_on_a_new_connection_has_a_line_for_each_time(tmp_path, durability):
    says = Says("an answer", tokens=(10, 4))
    scripts = [says, lambda _: [FIN], says]
    async with (
        ScriptedUpstream(in_turn(*scripts)) as upstream,
        serving(
            one_model(upstream.url, cache=None), tmp_path, ledger_options=durability
        ) as gateway,
    ):
        await gateway.chat("first")
        answer = await gateway.chat("second")

    row = gateway.books.entries()[1]
    exact = 10 * 1_000 + 4 * 2_000
    assert len(upstream.requests) == 3
    assert answer.headers["x-frugal-path"] == "large:unavailable:retried,large:served"
    assert (row["lower_nano_usd"], row["cost_nano_usd"]) == (exact, exact)
    assert row["upper_nano_usd"] >= 2 * exact
    served, lost = gateway.books.lines(row["request_id"])
    assert (served["outcome"], served["estimated"], served["cost_nano_usd"]) == (
        "accepted", 0, exact,
    )  # fmt: skip
    assert (lost["outcome"], lost["estimated"], lost["lower_nano_usd"]) == ("unavailable", 1, 0)
    assert lost["upper_nano_usd"] >= exact
