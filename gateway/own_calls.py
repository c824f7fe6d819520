"""Calls that the gateway makes for its own sake: audits and judges, each with lines of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from gateway.attempt import Tariff
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import GatewayError
from gateway.money.ledger import Ledger
from gateway.money.own_account import on_own_account
from gateway.money.records import Purpose
from gateway.request import parse_chat
from gateway.semantic import OwnAnswer
from gateway.wire import Part
from policies.schema import Route


class CallsOfOurOwn:
    """Asks as requests do, by `run`, but at the gateway's cost; `tariff` tells today's."""

    def __init__(
        self,
        run: Callable[[Entry], AsyncGenerator[Part, None]],
        ledger: Ledger,
        routes: Mapping[str, Route],
        clock: Clock,
        tariff: Callable[[], Tariff],
    ) -> None:
        self._run = run
        self._ledger = ledger
        self._routes = routes
        self._clock = clock
        self._tariff = tariff

    async def ask_again(self, entry: Entry) -> OwnAnswer:
        """Answer a request anew at the gateway's own cost."""
        request = msgspec.structs.replace(entry.request, id=f"{entry.request.id}a", cache="off")
        again = Entry(request, entry.caller, entry.route_name, entry.route, self._clock)
        again.features = entry.features
        return await self._on_own_account(again, "audit")

    async def ask_reference(self, entry: Entry, model: str) -> OwnAnswer:
        """Ask one model what a client was answered by another, at the gateway's own cost."""
        request = msgspec.structs.replace(
            entry.request, id=f"{entry.request.id}a", cache="off", repeat_key=None
        )
        again = Entry(request, entry.caller, entry.route_name, entry.route, self._clock)
        again.only = model
        return await self._on_own_account(again, "audit")

    async def ask_judge(self, entry: Entry, body: Mapping[str, Any]) -> OwnAnswer:
        """Ask a judge model at the gateway's own cost about what became of a request."""
        request = parse_chat(msgspec.json.encode(body), {}, f"{entry.request.id}j")
        route = self._routes[request.model]
        return await self._on_own_account(
            Entry(request, entry.caller, request.model, route, self._clock), "judge"
        )

    async def _on_own_account(self, own: Entry, purpose: Purpose) -> OwnAnswer:
        own.cache = "bypass"
        own.own_account = purpose
        try:
            async with aclosing(self._run(own)) as parts:
                async for _ in parts:
                    pass
        except GatewayError as exc:
            own.fail(exc)
        except BaseException:
            own.abandon()
            raise
        finally:
            record, lines = own.settle(self._tariff())
            await self._ledger.write(*on_own_account(record, lines, purpose))
        served = own.served if own.is_keepable else None
        spent = record.held_nano_usd(abandoned_at_most=True)
        return OwnAnswer(served.text if served else None, spent, served)
