"""Write every call down before it is made, with what bounds its bill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from gateway.access.worst_case import bounded
from gateway.attempt import Attempt, Tariff
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import LedgerUnavailable
from gateway.money.bounds import Rates, rates_of
from gateway.money.ledger import Intent, Ledger, LedgerError
from gateway.wire import Part
from router.types import Capabilities


@dataclass(frozen=True, slots=True)
class _Terms:
    """What holds for every call of a model."""

    rates: Rates
    served: Rates
    source: str
    dated: str | None


class Intending:
    """Tells the ledger of calls that are about to be made."""

    def __init__(
        self,
        ledger: Ledger,
        tariff: Tariff,
        capabilities: Mapping[str, Capabilities],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._capabilities = capabilities
        self._clock = clock
        self.use(tariff)

    def use(self, tariff: Tariff) -> None:
        """Bound what is called from now on by other prices."""
        self._tariff = tariff
        self._terms = {
            name: _Terms(
                rates_of(p),
                rates_of(p, any_service=True),
                p.source,
                p.dated.isoformat() if p.dated else None,
            )
            for name, p in tariff.prices.prices.items()
        }

    def most_nano(self, entry: Entry) -> int:
        """Return the most that a request's calls so far may cost, in nano-dollars."""
        return entry.most_nano(self._tariff)

    def announce(self, attempt: Attempt, entry: Entry) -> asyncio.Future[None] | None:
        """Write a call down; a future is returned where that must be waited for.

        An attempt that cannot be written down is none. Raises LedgerUnavailable.
        """
        try:
            intent = self._intent(attempt, entry)
            permit = entry.permit
            if permit is not None and permit.set_aside is not None:
                attempt.most_nano = intent.upper_nano_usd
                permit.announced += attempt.most_nano
            elif entry.request.max_nano_usd is not None:
                attempt.most_nano = intent.upper_nano_usd
            return self._ledger.intend(intent)
        except LedgerError as exc:
            entry.drop(attempt)
            raise _unavailable() from exc

    def _intent(self, attempt: Attempt, entry: Entry) -> Intent:
        request, caller, model = entry.request, entry.caller, attempt.model
        terms = self._terms[model]
        tags = caller.tags | request.tags
        asked, known = request.max_tokens, self._capabilities.get(model)
        most_in, most_out = bounded(request.asked.most_tokens, asked, known)
        return Intent(
            request_id=request.id,
            seq=attempt.seq,
            at_us=int(self._clock.wall() * 1_000_000),
            started_at_us=int(entry.started_at * 1_000_000),
            tenant=caller.tenant,
            key=caller.key,
            route=entry.route_name,
            requested_model=request.model,
            stream=request.stream,
            reference_model=entry.reference_model,
            model=model,
            provider=self._tariff.providers.get(model, ""),
            purpose=attempt.purpose,
            input_guess=min(request.size // 4, most_in),
            input_most=most_in,
            output_most=most_out * (request.fields.n or 1),
            busy_s=entry.route.timeouts.total,
            rates=terms.served if request.asks_service else terms.rates,
            price_source=terms.source,
            price_dated=terms.dated,
            is_rich=request.is_rich,
            is_spoken="modalities" in request.body,
            tags=tuple(sorted(tags)) if tags else (),
            own_account=entry.own_account,
            ended=entry.ended_lines(self._tariff) if attempt.seq else (),
        )


async def once(
    durable: asyncio.Future[None], parts: AsyncGenerator[Part, None]
) -> AsyncGenerator[Part, None]:
    """Yield a call's parts; the call is made once it is written down. Raises LedgerUnavailable."""
    async with aclosing(parts):
        try:
            await durable
        except LedgerError as exc:
            raise _unavailable() from exc
        async for part in parts:
            yield part


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("what is about to be spent cannot be recorded; try again shortly")
