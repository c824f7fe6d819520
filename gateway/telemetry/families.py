"""Every family of `/metrics`: its name, kind, meaning and labels, in the order in which it is told.

Names and units are those of Prometheus and OpenMetrics; docs/metrics.md is this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `name` is without the prefix, and without a counter's `_total`."""

    name: str
    kind: Kind
    told: str
    labels: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """Return the name as Prometheus knows it."""
        return f"frugal_{self.name}{'_total' if self.kind == 'counter' else ''}"


def _of(kind: Kind, name: str, told: str, *labels: str) -> Family:
    return Family(name, kind, told, labels)


SINCE_START = (
    _of(
        "counter",
        "requests",
        "Requests; outcome is settled, failed or abandoned, cache miss, bypass, exact or semantic.",
        *("route", "model", "cache", "outcome"),
    ),
    _of(
        "histogram",
        "request_duration_seconds",
        "How long settled requests took.",
        *("route", "cache"),
    ),
    _of(
        "histogram",
        "time_to_first_token_seconds",
        "How long streamed requests took to their first part.",
        *("route", "cache"),
    ),
    _of("counter", "tenant_requests", "Requests by tenant; those that come late share `other`.",
        "tenant"),
    _of("counter", "tenant_cost_usd", "What requests cost their tenants, in dollars.", "tenant"),
    _of(
        "counter",
        "calls",
        "Calls of models; purpose is serve, control, hedge, audit, judge or verify.",
        *("model", "purpose", "outcome"),
    ),
    _of("counter", "call_cost_usd", "What calls cost, whoever paid, in dollars.",
        "model", "purpose"),
    _of("histogram", "call_duration_seconds", "How long calls took that were answered.", "model"),
    _of(
        "histogram",
        "call_time_to_first_token_seconds",
        "How long calls of streamed requests took to their first part.",
        "model",
    ),
    _of(
        "histogram",
        "time_per_output_token_seconds",
        "Time between two tokens, as one mean of each call of a streamed request.",
        "model",
    ),
    _of("counter", "tokens", "Tokens of calls, each in one bucket of the ledger.",
        "model", "bucket"),
)  # fmt: skip
"""Of this machine since the gateway began."""

OF_LEDGER = (
    _of("gauge", "ledger_readable", "Whether this scrape could read the ledger."),
    _of("counter", "cost_usd", "What requests cost their tenants, in dollars.", "route"),
    _of(
        "counter",
        "saved_usd",
        "What models' answers cost less than at the reference's list price, in dollars.",
        "route",
    ),
    _of("counter", "cache_saved_usd", "What hits would have cost, in dollars.", "route"),
    _of(
        "gauge",
        "measured_saved_usd",
        "What the cascade saved as measured against drawn requests, in dollars.",
        "route",
    ),
    _of("gauge", "measured_saved_usd_lower", "Lower end of its 95 % interval.", "route"),
    _of("gauge", "measured_saved_usd_upper", "Upper end of its 95 % interval.", "route"),
    _of("counter", "cache_hits", "Requests answered from a cache.", "route", "cache"),
    _of("counter", "escalations", "Requests of which a draft was not good enough.", "route"),
    _of("counter", "background_cost_usd", "What the gateway paid on its own account, in dollars.",
        "purpose"),
    _of("gauge", "budget_limit_usd", "A budget, in dollars.", "scope", "name", "per", "at_limit"),
    _of("gauge", "budget_spent_usd", "What is spent of it in its present window.",
        "scope", "name", "per", "at_limit"),
    _of("gauge", "budget_reserved_usd", "What is set aside of it; not told where others hold some.",
        "scope", "name", "per", "at_limit"),
    _of("gauge", "budgets_untold", "Budgets that are not told because fuller ones are."),
    _of("gauge", "learning_stage",
        "Where a route's learning stands: rules, calibrated, certified or learned.",
        "route", "stage"),
    _of("counter", "learning_steps",
        "Steps that a route's learning has taken; drift, reset, lost and rolled_back are alarms.",
        "route", "kind"),
    _of("gauge", "certificate",
        "1 for how a route's quality floor stands: none, learning, certified, weaker or lost.",
        "route", "state"),
    _of("gauge", "certified_loss_bound",
        "At most this share of answers is worse than the reference's, as certified.", "route"),
)  # fmt: skip
"""Of the whole ledger since it began: several machines that share one tell the same."""

OF_CACHE = (
    _of("gauge", "semantic_cache_entries", "Answers in the semantic cache."),
    _of("counter", "semantic_cache_events", "What the semantic cache did, since it began.",
        "event"),
    _of("counter", "semantic_refusals", "Stored questions that a guard refused.", "axis"),
    _of("gauge", "semantic_max_error_ratio", "The false-hit rate that a route allows.", "route"),
    _of("gauge", "semantic_false_hit_ratio", "Share of wrong answers among audited hits.",
        "route", "tenant"),
    _of("gauge", "semantic_false_hit_ratio_lower", "Lower end of its 95 % interval.",
        "route", "tenant"),
    _of("gauge", "semantic_false_hit_ratio_upper", "Upper end of its 95 % interval.",
        "route", "tenant"),
    _of("gauge", "semantic_serving", "Whether the error budget lets the route serve.",
        "route", "tenant"),
    _of("gauge", "semantic_audited_hits", "Audited hits that the ratio is of.", "route", "tenant"),
    _of("counter", "semantic_stops", "How often a route fell back to exact only.",
        "route", "tenant"),
)  # fmt: skip
"""Of the semantic cache of this machine."""

OF_PROCESS = (
    _of("gauge", "process_requests_under_way", "Requests under way.", "worker"),
    _of("gauge", "process_queue_waiting", "Requests that wait for a limit.", "worker"),
    _of("histogram", "process_queue_wait_seconds",
        "How long requests waited for a limit that are admitted, refused or gone by now.",
        "worker", "outcome"),
    _of("gauge", "process_loop_lag_seconds", "How late the event loop is, where load is shed.",
        "worker"),
    _of("gauge", "process_ledger_waiting", "Requests whose lines are not durable yet.", "worker"),
    _of("gauge", "process_ledger_healthy", "Whether billable work is started.", "worker"),
    _of("gauge", "process_breaker_state",
        "1 for the worst state that the breakers of a model are in: closed, half_open or open.",
        "worker", "model", "state"),
    _of("gauge", "process_deployment_up", "Whether a server of a model is asked.",
        "worker", "model", "deployment"),
    _of("gauge", "process_deployment_in_flight", "Calls that a server has under way.",
        "worker", "model", "deployment"),
    _of("counter", "process_traces", "Traced requests, sent or dropped.", "worker", "outcome"),
    _of("counter", "process_alerts", "Alerts sent, dropped because too many wait, or failed.",
        "worker", "outcome"),
    _of("counter", "process_exact_cache", "What the exact cache did.", "worker", "event"),
    _of("counter", "process_drafts_given_up", "Drafts given up before their end.",
        "worker", "model"),
    _of("counter", "process_draft_tokens_saved",
        "About how many tokens those would have gone on for.", "worker", "model"),
)  # fmt: skip
"""Of one process each, which `worker` names by its number."""

OF_GATEWAY = (
    _of("gauge", "ready", "Whether billable requests are taken."),
    _of("counter", "refusals",
        "Requests turned away before anything was looked up, by all workers.", "code"),
)  # fmt: skip

FAMILIES = (*OF_GATEWAY, *SINCE_START, *OF_LEDGER, *OF_CACHE, *OF_PROCESS)
