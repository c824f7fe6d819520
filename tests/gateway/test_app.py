"""How the parts are wired: handed-in providers, lifespans, and what may not start."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import create_app
from gateway.money.prices import UnknownPrice
from gateway.providers.recorded import RecordedProvider
from gateway.settings import Settings
from policies.loader import parse_policy
from tests.support.gateway_app import asking, lifespan, serving
from tests.support.policies import CHEAP, policy, remote


class Closing(RecordedProvider):
    """A recorded provider that remembers being closed."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


def _text(**more):
    return policy({"large": remote("http://127.0.0.1:1/v1", price=CHEAP)}, **more)


async def test_providers_that_are_handed_in_take_the_place_of_the_policys(tmp_path):
    fake = RecordedProvider.of({"hi": "a recorded reply"})
    async with serving(_text(), tmp_path, providers={"large": fake}) as gateway:
        answer = await gateway.chat(model="large")

    assert answer.json()["choices"][0]["message"]["content"] == "a recorded reply"
    assert gateway.books.entry()["cost_nano_usd"] == 1 * 1_000 + 3 * 2_000


async def test_providers_are_closed_when_the_app_stops(tmp_path):
    fake = Closing.of({"hi": "x"})
    async with serving(_text(), tmp_path, providers={"large": fake}):
        assert not fake.is_closed

    assert fake.is_closed


async def test_the_ledger_is_the_settings_before_it_is_the_policys(tmp_path):
    ignored = tmp_path / "ignored.db"
    text = _text(storage={"ledger": f"sqlite:///{ignored}"})
    async with serving(text, tmp_path) as gateway:
        await gateway.chat(model="large")

        assert len(gateway.books.entries()) == 1
    assert not ignored.exists()


def test_a_model_without_a_price_is_refused_before_anything_starts(tmp_path):
    models = {"large": {"provider": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    unpriced = parse_policy(policy(models), name="policy.yaml", env={})

    with pytest.raises(UnknownPrice, match="large"):
        create_app(Settings(), unpriced)


def test_nothing_is_opened_before_the_lifespan(tmp_path):
    checked = parse_policy(_text(), name="policy.yaml", env={})
    create_app(Settings(ledger=f"sqlite:///{tmp_path}/ledger.db"), checked)

    assert list(tmp_path.iterdir()) == []


async def test_the_admin_port_serves_no_completions(tmp_path):
    async with serving(_text(), tmp_path) as gateway:
        answer = await gateway.admin.post("/v1/chat/completions", json=asking())

    assert answer.status_code == 404


async def test_an_in_process_client_needs_no_socket(tmp_path):
    checked = parse_policy(_text(), name="policy.yaml", env={})
    fake = RecordedProvider.of({"hi": "x"})
    settings = Settings(ledger=f"sqlite:///{tmp_path}/ledger.db")
    apps = create_app(settings, checked, providers={"large": fake})
    async with (
        lifespan(apps.public),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(apps.public), base_url="http://127.0.0.1"
        ) as client,
    ):
        answer = await client.post("/v1/chat/completions", json=asking(model="large"))

    assert answer.status_code == 200
