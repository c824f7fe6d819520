"""Another policy takes the place of the one at work, and no request notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.gateway_app import asking, events_of, frugal_serve, serving, text_of
from tests.support.policies import one_model, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream
from tests.support.threaded import upstream_in_thread

OLD = Says("the old model", tokens=(10, 3))
NEW = Says("the new model", tokens=(10, 3))


class Slow:
    """A model that stops in the middle of each stream until it is released."""

    def __init__(self) -> None:
        self.hold = Hold()

    def __call__(self, received):
        return [*OLD.until(2), self.hold, *OLD.since(2)]


async def test_requests_under_way_end_with_the_policy_they_began_with(tmp_path):
    model, path = Slow(), tmp_path / "policy.yaml"
    async with ScriptedUpstream(model) as old, ScriptedUpstream(NEW) as new:
        path.write_text(one_model(old.url, cache=None))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            under_way = asyncio.create_task(gateway.chat(stream=True))
            await model.hold.reached.wait()
            path.write_text(one_model(new.url, cache=None))
            assert await gateway.reload()
            after = await gateway.chat()
            model.hold.release()
            before = await under_way

    assert after.json() == NEW.body()
    assert text_of(events_of(before)) == OLD.text
    assert {row["state"] for row in gateway.books.entries()} == {"settled"}


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodels: {large: {provider: openai",
        "version: 1\nmodels: {large: {provider: nobody}}",
        "version: 1\nmodels: !!python/object:os.system {}",
        "version: 1\nmodels: {large: {provider: openai, base_url: 'http://h', price: {}}}",
        "version: 1\nmodels: {m: {provider: 'gateway.nothing:Class', price: unknown_is_free}}",
    ],
    ids=["syntax", "unknown provider", "tag", "no price", "no such class"],
)
async def test_a_wrong_file_keeps_the_old_policy_and_says_why(tmp_path, text, caplog):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old:
        path.write_text(one_model(old.url))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            path.write_text(text)
            assert not await gateway.reload()
            response = await gateway.chat()

    assert response.json() == OLD.body()
    assert "the policy stays as it was: " in caplog.text


async def test_a_file_that_is_gone_keeps_the_old_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old:
        path.write_text(one_model(old.url))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            path.unlink()

            assert not await gateway.reload()
            assert (await gateway.chat()).status_code == 200


async def test_keys_routes_and_the_cache_follow_the_new_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old:
        path.write_text(one_model(old.url))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            await gateway.chat()
            renamed = json.loads(one_model(old.url))
            renamed["routes"]["other"] = {"model": "large"}
            path.write_text(json.dumps(renamed))
            assert await gateway.reload()
            kept = await gateway.chat()
            other = await gateway.chat(model="other")
            names = [m["id"] for m in (await gateway.client.get("/v1/models")).json()["data"]]
            del renamed["access"]
            path.write_text(json.dumps(renamed))
            assert await gateway.reload()
            locked = await gateway.chat()

    assert kept.headers["x-cache"] == "exact"
    assert other.status_code == 200
    assert names == ["auto", "other", "large"]
    assert locked.status_code == 401


async def test_an_unchanged_model_keeps_its_connections(tmp_path):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old, ScriptedUpstream(NEW) as new:
        path.write_text(one_model(old.url, cache=None))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            await gateway.chat()
            text = json.loads(one_model(old.url, cache=None))
            text["models"]["more"] = remote(new.url)
            path.write_text(json.dumps(text))
            assert await gateway.reload()
            await gateway.chat()
            await gateway.chat(model="more")
            path.write_text(one_model(new.url, cache=None))
            assert await gateway.reload()
            await old.until(lambda: old.open == 0)

    assert old.connections == 1


async def test_what_only_a_restart_changes_stays_and_is_told(tmp_path, caplog):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old:
        path.write_text(one_model(old.url))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            other = json.loads(one_model(old.url))
            other["server"] = {"port": 1, "max_body": 4}
            path.write_text(json.dumps(other))
            assert await gateway.reload()
            response = await gateway.chat()
            shown = (await gateway.admin.get("/admin/policy")).json()["server"]

    assert response.status_code == 413
    assert (shown["port"], shown["max_body"]) == (4000, 4)
    assert "change with a restart only" in caplog.text


async def test_no_request_fails_while_policies_change(tmp_path):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old, ScriptedUpstream(NEW) as new:
        path.write_text(one_model(old.url, cache=None))
        async with serving(path.read_text(), tmp_path, path=path) as gateway:
            is_over = asyncio.Event()
            statuses = []

            async def ask(stream):
                while not is_over.is_set():
                    response = await gateway.chat(stream=stream)
                    is_whole = "error" not in response.text
                    statuses.append(response.status_code if is_whole else 0)

            clients = [asyncio.create_task(ask(index % 2 == 0)) for index in range(8)]
            for index in range(10):
                path.write_text(one_model((new, old)[index % 2].url, cache=None))
                assert await gateway.reload()
                reached = len(statuses) + 10
                async with asyncio.timeout(20):
                    while len(statuses) < reached:  # noqa: ASYNC110 - the clients tell nobody
                        await asyncio.sleep(0)
            is_over.set()
            await asyncio.gather(*clients)

    assert set(statuses) == {200}
    assert len(old.requests) + len(new.requests) == len(statuses)


# As a process


def _chat(client):
    return client.post("/v1/chat/completions", json=asking()).json()["choices"][0]["message"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_makes_every_worker_read_the_policy_again(tmp_path, workers):
    with (
        upstream_in_thread(OLD) as old,
        upstream_in_thread(NEW) as new,
        frugal_serve(one_model(old.url, cache=None), tmp_path, "--workers", workers) as served,
    ):
        with served.client() as client:
            assert _chat(client)["content"] == OLD.text
        (tmp_path / "policy.yaml").write_text(one_model(new.url, cache=None))
        served.process.send_signal(signal.SIGHUP)
        _until(lambda: served.said().count("is followed from now on") == int(workers))
        for _ in range(4):
            with served.client() as client:
                assert _chat(client)["content"] == NEW.text

        assert served.stop() == 0


def test_a_worker_that_is_still_starting_outlives_a_hangup_and_follows_afterwards(tmp_path):
    with (
        upstream_in_thread(NEW) as upstream,
        frugal_serve(one_model(upstream.url), tmp_path, "--workers", "2") as served,
    ):
        before = _children(served.process.pid)
        os.kill(min(before), signal.SIGKILL)
        _until(lambda: _children(served.process.pid) - before)
        for pid in _children(served.process.pid) - before:
            os.kill(pid, signal.SIGHUP)  # it has only begun to be
        _until(lambda: "is followed from now on" in served.said())

        assert served.said().count("a worker ended") == 1
        assert served.stop() == 0


def _children(pid):
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def test_a_file_that_was_changed_while_the_gateway_started_is_followed(tmp_path):
    path = tmp_path / "policy.yaml"
    async with ScriptedUpstream(OLD) as old, ScriptedUpstream(NEW) as new:
        read, written = json.loads(one_model(old.url, cache=None)), one_model(new.url, cache=None)
        read["server"] = {"reload": "watch"}
        path.write_text(json.dumps({**json.loads(written), "server": read["server"]}))
        async with serving(json.dumps(read), tmp_path, path=path) as gateway, asyncio.timeout(120):
            while (await gateway.chat()).json() != NEW.body():
                pass


def test_a_watched_file_is_followed(tmp_path):
    watched = policy({}, server={"reload": "watch"})
    with upstream_in_thread(OLD) as old, upstream_in_thread(NEW) as new:
        before, after = json.loads(watched), json.loads(watched)
        before["models"], after["models"] = {"auto": remote(old.url)}, {"auto": remote(new.url)}
        with frugal_serve(json.dumps(before), tmp_path) as served, served.client() as client:
            assert _chat(client)["content"] == OLD.text
            (tmp_path / "policy.yaml").write_text(json.dumps(after))
            _until(lambda: "is followed from now on" in served.said())

            assert _chat(client)["content"] == NEW.text
            assert served.said().count("is followed from now on") == 1


def _until(holds):
    """Look again and again until it is so."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it never was so"
        time.sleep(0.02)
