"""How one process stands, as figures that workers can tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.resilience.balance import BalancedProvider
from gateway.telemetry.series import Labels

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.pipeline import Pipeline

Figure = float | list[float]
"""A number; or of waits, how many were at most each bound, how many in all, and their sum."""
Figures = dict[str, list[tuple[Labels, Figure]]]
"""Lines by the name of their family, with their labels but for the worker's."""


def figures_of(running: Running) -> Figures:
    """Return how this process stands now; read in its event loop."""
    found: Figures = {}
    if running.ledger is not None:
        found["process_ledger_waiting"] = [((), running.ledger.waiting)]
        found["process_ledger_healthy"] = [((), float(running.ledger.is_healthy))]
    if running.caches is not None:
        counts: Mapping[str, int] = asdict(running.caches.exact.stats())
        found["process_exact_cache"] = [((event,), count) for event, count in counts.items()]
    if running.resilience is not None:
        states = running.resilience.breakers()
        found["process_breaker_state"] = [((model, state), 1.0) for model, state in states.items()]
    found |= _deployments(running)
    if running.pipeline is not None:
        found |= _of_pipeline(running.pipeline)
    return found


def _of_pipeline(pipeline: Pipeline) -> Figures:
    parts = pipeline.parts
    drafts = pipeline.early.models.items()
    found: Figures = {
        "process_requests_under_way": [((), pipeline.under_way)],
        "process_drafts_given_up": [((m,), d.given_up) for m, d in drafts if d.given_up],
        "process_draft_tokens_saved": [((m,), d.saved) for m, d in drafts if d.given_up],
    }
    queue = parts.admission.waiting if parts.admission is not None else None
    if queue is not None:
        found["process_queue_waiting"] = [((), len(queue))]
        found["process_queue_wait_seconds"] = [
            (labels, [*counts, queue.waits.seconds.values[labels]])
            for labels, counts in queue.waits.cumulative().items()
        ]
    if parts.shedding is not None:
        found["process_loop_lag_seconds"] = [((), parts.shedding.standing_s)]
    if (traces := parts.tracing) is not None:
        found["process_traces"] = [(("sent",), traces.sent), (("dropped",), traces.dropped)]
    if (alerts := parts.alerting) is not None:
        outcomes = {"sent": alerts.sent, "dropped": alerts.dropped, "failed": alerts.failed}
        found["process_alerts"] = [((outcome,), count) for outcome, count in outcomes.items()]
    return found


def _deployments(running: Running) -> Figures:
    up: list[tuple[Labels, Figure]] = []
    in_flight: list[tuple[Labels, Figure]] = []
    for model, name, is_up, under_way in _members(running):
        up.append(((model, name), float(is_up)))
        in_flight.append(((model, name), under_way))
    return {"process_deployment_up": up, "process_deployment_in_flight": in_flight}


def _members(running: Running) -> Iterator[tuple[str, str, bool, int]]:
    for model, rules in running.policy.models.items():
        provider = running.site.provider(model, rules) if running.site is not None else None
        if isinstance(provider, BalancedProvider):
            for member in provider.members:
                yield model, member.name, not member.is_down, member.under_way
