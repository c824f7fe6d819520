from __future__ import annotations

import msgspec
import pytest

from gateway.money.intents import Intent
from tests.support.gateway_app import serving
from tests.support.policies import one_model, two_tiers
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream, answer


class Looking:
    """A model that looks, whenever it is asked, at what is written down by then."""

    def __init__(self, folder, says):
        self.seen = []
        self._folder = folder
        self._says = says

    def __call__(self, received):
        lines = b"".join(path.read_bytes() for path in sorted(self._folder.glob("*.log")))
        self.seen.append([msgspec.json.decode(each, type=Intent) for each in lines.splitlines()])
        return self._says(received)


def _looking(tmp_path, says=None):
    return Looking(tmp_path / "ledger.db-intents", says or Says("x"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_is_written_down_before_it_is_made(tmp_path, stream):
    model = _looking(tmp_path)
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        response = await gateway.chat("hello", stream=stream, max_tokens=7)

    ((found,),) = model.seen
    assert found.request_id == response.headers["x-request-id"]
    assert (found.model, found.provider, found.seq) == ("large", "openai", 0)
    assert (found.route, found.key, found.stream) == ("auto", "anonymous", stream)
    assert found.output_most == 7
    assert found.input_most >= len("hello")
    (line,) = gateway.books.lines(found.request_id)
    assert line["provider"] == "openai"
    assert found.upper_nano_usd >= line["cost_nano_usd"] > 0


async def test_each_tier_is_written_down_with_what_the_earlier_ones_cost(tmp_path):
    small = _looking(tmp_path, Says("hm", logprobs=(-3.0,)))
    large = _looking(tmp_path)
    async with (
        ScriptedUpstream(small) as first,
        ScriptedUpstream(large) as second,
        serving(two_tiers(first.url, second.url), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    ((before, after),) = large.seen
    assert [i.model for i in small.seen[0]] == ["small"]
    assert (before.model, after.model, after.seq) == ("small", "large", 1)
    (ended,) = after.ended
    (line, _) = gateway.books.lines(response.headers["x-request-id"])
    assert (ended.model, ended.outcome) == ("small", "rejected")
    assert ended.cost_nano_usd == line["cost_nano_usd"] > 0


async def test_what_cannot_be_written_down_is_not_called(tmp_path):
    async with (
        ScriptedUpstream(Says("x")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        (tmp_path / "ledger.db-intents").write_text("no folder")
        refused = await gateway.chat()
        streamed = await gateway.chat(stream=True)
        (tmp_path / "ledger.db-intents").unlink()
        served = await gateway.chat()

    assert [r.status_code for r in (refused, streamed, served)] == [503, 503, 200]
    assert refused.json()["error"]["code"] == "ledger_unavailable"
    assert len(upstream.requests) == 1
    assert gateway.books.entry()["request_id"] == served.headers["x-request-id"]


async def test_nothing_is_written_down_for_what_the_cache_answers(tmp_path):
    model = _looking(tmp_path)
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        await gateway.chat("same")
        hit = await gateway.chat("same")
        lines = b"".join(p.read_bytes() for p in (tmp_path / "ledger.db-intents").glob("*"))

    assert hit.headers["x-cache"] == "exact"
    assert lines.count(b"\n") == 1


async def test_a_disk_that_is_waited_for_delays_the_call_and_no_more(tmp_path):
    model = _looking(tmp_path)
    async with ScriptedUpstream(model) as upstream:
        text = one_model(upstream.url)
        async with serving(text, tmp_path, ledger_options="?synchronous=full") as gateway:
            response = await gateway.chat()

    assert response.status_code == 200
    assert len(model.seen[0]) == 1


async def test_a_retry_is_a_line_of_its_own(tmp_path):
    scripts = [[answer({}, status="500 Oh")], Says("x")]
    calls = iter(scripts)

    def says(received):
        script = next(calls)
        return script(received) if callable(script) else script

    model = _looking(tmp_path, says)
    retries = {"attempts": 2, "base": "1ms", "per_second": 100}
    async with (
        ScriptedUpstream(model) as upstream,
        serving(one_model(upstream.url, retries=retries), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.status_code == 200
    assert [[i.seq for i in seen] for seen in model.seen] == [[0], [0, 1]]
