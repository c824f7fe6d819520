"""Deployments that are asked whether they are well, over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import CircuitOpen, ModelLimited
from gateway.resilience.adaptive import AdaptiveLimit
from gateway.resilience.balance import BalancedProvider, Member
from gateway.resilience.health import url_of
from policies.resilience import AdaptiveRules, HealthRules
from policies.schema import Model
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream, answer

ANSWER = Says("The answer is 12", tokens=(10, 5))
OFTEN = {"interval": "20ms", "timeout": "5s"}


class Patient:
    """A server that answers chats, and its health check as it is told."""

    def __init__(self) -> None:
        self.is_well = True
        self.chats = 0
        self.checks: list[str] = []

    def __call__(self, received):
        if received.method == "POST":
            self.chats += 1
            return ANSWER(received)
        self.checks.append(received.path)
        status = "200 OK" if self.is_well else "503 Loading"
        return [answer({"data": []}, status=status)]


@pytest.fixture
async def two():
    patients = [Patient(), Patient()]
    async with ScriptedUpstream(patients[0]) as one, ScriptedUpstream(patients[1]) as other:
        patients[0].server, patients[1].server = one, other
        yield patients


def _text(patients, **model):
    deployments = [{"base_url": each.server.url} for each in patients]
    models = {"m": {"provider": "openai", "price": CHEAP, "deployments": deployments, **model}}
    return policy(models, {"auto": {"model": "m"}})


async def _checked(patient, times=3):
    """Wait until it was asked so many times more, so that what it says has been heard."""
    wanted = len(patient.checks) + times
    await patient.server.until(lambda: len(patient.checks) >= wanted)


async def test_a_deployment_that_says_it_is_ill_is_not_asked_until_it_is_well(two, tmp_path):
    sick, well = two
    sick.is_well = False
    async with serving(_text(two, health=OFTEN), tmp_path) as gateway:
        await _checked(sick)
        ill = [(await gateway.chat(str(i))).status_code for i in range(10)]
        chats_when_ill = sick.chats
        sick.is_well = True
        await _checked(sick)
        await asyncio.gather(*(gateway.chat(f"again {i}") for i in range(40)))

    assert ill == [200] * 10
    assert (chats_when_ill, sick.checks[0]) == (0, "/v1/models")
    assert sick.chats > 0
    assert sick.chats + well.chats == 50


async def test_a_model_whose_servers_are_all_ill_fails_at_once_and_falls_back(two, tmp_path):
    sick, well = two
    sick.is_well = False
    models = {
        "m": remote(sick.server.url, price=CHEAP, health={**OFTEN, "path": "/healthz"}),
        "spare": remote(well.server.url, price=CHEAP),
    }
    routes = {"auto": {"model": "m", "fallback": ["spare"]}}
    async with serving(policy(models, routes), tmp_path) as gateway:
        await _checked(sick)
        served = await gateway.chat("a")
        alone = await gateway.chat("a", model="m")

    assert served.headers["x-frugal-path"] == "m:circuit_open:failed,spare:fallback"
    assert (alone.status_code, alone.headers["retry-after"]) == (503, "1")
    assert sick.chats == 0
    assert sick.checks[0] == "/healthz"


async def test_a_server_that_nobody_reaches_is_ill(two, tmp_path):
    sick, well = two
    text = _text(two, health={**OFTEN, "failures": 1})
    async with serving(text, tmp_path) as gateway:
        sick.server._server.close()
        for writer in list(sick.server._writers):
            writer.transport.abort()
        await _checked(well)
        found = [(await gateway.chat(str(i))).status_code for i in range(10)]

    assert found == [200] * 10


@pytest.mark.parametrize(
    ("provider", "base", "path", "url"),
    [
        ("openai", "http://a/v1", None, "http://a/v1/models"),
        ("openai", None, None, "https://api.openai.com/v1/models"),
        ("openai", "http://a/v1?api-version=2", None, "http://a/v1/models?api-version=2"),
        ("anthropic", None, None, "https://api.anthropic.com/v1/models"),
        ("vllm", "http://a:8000/v1", None, "http://a:8000/health"),
        ("sglang", "http://a/v1/", None, "http://a/health"),
        ("ollama", "http://a/v1", None, "http://a/api/version"),
        ("tgi", "http://a/v1", "/live?x=1", "http://a/live?x=1"),
    ],
)
def test_each_kind_of_server_is_asked_what_it_answers(provider, base, path, url):
    model = Model.model_validate({"provider": provider, "base_url": base})

    assert url_of(model, HealthRules(path=path)) == url


def test_a_deployment_that_comes_back_is_tried_with_one_call_first():
    member = Member("d", None, 1.0)
    for _ in range(2):
        member.checked(False, 2, 0.0)
    was_down = member.is_down
    member.checked(True, 2, 1.0)

    ticket = member.breaker.admit(1.0)
    assert was_down
    assert not member.is_down
    assert ticket.is_probe
    assert not member.is_well(1.0)
    member.breaker.answered(ticket)
    assert member.is_well(1.0)


# Adaptive concurrency


def _balanced(*sizes):
    members = []
    for number, size in enumerate(sizes):
        rules = AdaptiveRules(min=1, start=size, max=size)
        members.append(Member(f"d{number}", None, 1.0, AdaptiveLimit(rules)))
    clock = {"tick": lambda: 0.0, "wall": lambda: 0.0, "draw": lambda: 0.0}
    return BalancedProvider(members, **clock, model="m"), members


def test_a_full_deployment_is_passed_over_and_none_is_asked_where_all_are_full():
    provider, (first, second) = _balanced(1, 2)
    first.under_way = 1
    assert provider.choose(0.0, set()) is second

    second.under_way = 2
    with pytest.raises(ModelLimited, match="adaptive_concurrency"):
        provider.choose(0.0, set())
    first.is_down = second.is_down = True
    with pytest.raises(CircuitOpen):
        provider.choose(0.0, set())


async def test_a_model_past_what_it_can_take_falls_back(tmp_path):
    hold = Hold()
    script = [[*ANSWER.until(1), hold, *ANSWER.since(1)]]
    async with ScriptedUpstream(script) as slow, ScriptedUpstream(ANSWER) as spare:
        models = {
            "m": remote(slow.url, price=CHEAP, adaptive_concurrency={"min": 1, "max": 1}),
            "spare": remote(spare.url, price=CHEAP),
        }
        routes = {"auto": {"model": "m", "fallback": ["spare"]}}
        async with serving(policy(models, routes), tmp_path) as gateway:
            first = asyncio.create_task(gateway.chat("a", stream=True))
            await hold.reached.wait()
            second = await gateway.chat("b")
            alone = await gateway.chat("b", model="m")
            hold.release()
            statuses = (await first).status_code

    assert statuses == 200
    assert second.headers["x-frugal-path"] == "m:limited:failed,spare:fallback"
    assert (alone.status_code, alone.headers["retry-after"]) == (429, "1")
