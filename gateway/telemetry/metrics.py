"""`/metrics`: what is true at the moment of the scrape, whichever worker is asked.

Nothing is counted for it on the way of a request. Sums come from the ledger, error
budgets from the semantic cache's file; both are shared by all workers of a machine.
Only what is marked so is of the process that answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.telemetry.readings import Learnt, Readings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MOST_SERIES = 200
"""How many pairs of route and tenant are told apart; those asked least share a line, `other`."""

_DOLLAR = 1e-9
_COUNTERS = (
    ("requests", "requests", "Requests that were answered or failed.", 1.0),
    ("cost_usd", "cost_nano_usd", "What requests cost their tenants.", _DOLLAR),
    (
        "saved_usd",
        "saved_nano_usd",
        "What models' answers cost less than the reference's list price.",
        _DOLLAR,
    ),
    ("cache_saved_usd", "cache_saved_nano_usd", "What cache hits would have cost.", _DOLLAR),
    ("cache_hits", "cache_hits", "Requests answered from a cache.", 1.0),
    ("escalations", "escalations", "Drafts that were not good enough.", 1.0),
)


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape found. `semantic` is the report of the semantic cache, if there is one.

    `refused` counts by reason, over all workers. `ledger` is None where it could not be read.
    `early` is by model how many drafts were given up before their end, and about how many tokens
    that saved.
    """

    ledger: Readings | None
    semantic: Mapping[str, Any] | None = None
    exact: Mapping[str, int] = field(default_factory=dict)
    is_ready: bool = True
    refused: Mapping[str, int] = field(default_factory=dict)
    early: Mapping[str, tuple[int, float]] = field(default_factory=dict)


def exposition(scrape: Scrape) -> bytes:
    """Return a scrape in the text format of Prometheus 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Once(scrape))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)
class _Once:
    """A collector of what was already read."""

    scrape: Scrape

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        scrape = self.scrape
        yield _gauge("ready", "Whether billable requests are taken.", (), [((), scrape.is_ready)])
        yield _gauge(
            "ledger_readable",
            "Whether this scrape could read the ledger.",
            (),
            [((), scrape.ledger is not None)],
        )
        yield _counter(
            "refusals",
            "Requests turned away before anything was looked up, since the workers began.",
            ("code",),
            [((code,), count) for code, count in sorted(scrape.refused.items())],
        )
        if scrape.ledger is not None:
            yield from _of_ledger(scrape.ledger)
            yield from _of_learning(scrape.ledger.learnt)
        yield _counter(
            "process_exact_cache",
            "The exact cache of the process that answers.",
            ("event",),
            [((name,), count) for name, count in scrape.exact.items()],
        )
        yield from _of_early(scrape.early)
        if scrape.semantic is not None:
            yield from _of_semantic(scrape.semantic)


def _of_early(early: Mapping[str, tuple[int, float]]) -> Iterator[Metric]:
    yield _counter(
        "process_drafts_given_up",
        "Drafts that the process that answers gave up before their end.",
        ("model",),
        [((model,), float(count)) for model, (count, _) in early.items()],
    )
    yield _counter(
        "process_draft_tokens_saved",
        "About how many tokens those would have gone on for.",
        ("model",),
        [((model,), saved) for model, (_, saved) in early.items()],
    )


def _of_ledger(found: Readings) -> Iterator[Metric]:
    for name, attribute, told, unit in _COUNTERS:
        samples = [((each.route,), getattr(each, attribute) * unit) for each in found.routes]
        yield _counter(name, told, ("route",), samples)
    yield _counter(
        "background_cost_usd",
        "What the gateway paid on its own account.",
        ("purpose",),
        [((why,), cost * _DOLLAR) for why, cost in found.background],
    )
    yield _gauge(
        "recent_requests",
        "Requests of the last five minutes, by how they were answered.",
        ("route", "cache", "state"),
        [(row[:3], row[3]) for row in found.answered],
    )
    yield _gauge(
        "recent_calls",
        "Calls of models in the last five minutes, by outcome.",
        ("model", "outcome"),
        [(row[:2], row[2]) for row in found.called],
    )


def _of_learning(learnt: Sequence[Learnt]) -> Iterator[Metric]:
    yield _gauge(
        "learning_stage",
        "Where a route's learning stands: rules, calibrated, certified or learned.",
        ("route", "stage"),
        [((each.route, each.stage), 1.0) for each in learnt],
    )
    yield _counter(
        "learning_steps",
        "Steps that a route's learning has taken.",
        ("route", "kind"),
        [((each.route, kind), n) for each in learnt for kind, n in each.steps],
    )
    yield _gauge(
        "certified_loss_bound",
        "At most this share of answers is worse than the reference's, as certified.",
        ("route",),
        [((each.route,), each.bound) for each in learnt if each.bound is not None],
    )


def _of_semantic(report: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge(
        "semantic_cache_entries", "Answers in the semantic cache.", (), [((), report["entries"])]
    )
    counts = ("lookups", "hits", "withheld", "kept", "taught", "errors")
    yield _counter(
        "process_semantic_cache",
        "The semantic cache of the process that answers.",
        ("event",),
        [((name,), report[name]) for name in counts],
    )
    yield _counter(
        "process_semantic_refusals",
        "Stored questions that a guard refused here.",
        ("axis",),
        [((axis,), n) for axis, n in report["refused"].items()],
    )
    yield from _of_budgets(report["budgets"])


def _of_budgets(budgets: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield what audits came to; routes that are stopped are told first, then the most audited."""
    order = sorted(budgets, key=lambda b: (b["state"] == "serving", -b["audited"]))
    told, rest = order[:MOST_SERIES], order[MOST_SERIES:]
    named = [((b["route"], b["tenant"]), b) for b in told]
    keys = ("route", "tenant")
    for name, words, value in (
        ("false_hit_ratio", "Share of wrong answers among audited hits.", "false_hit_rate"),
        ("false_hit_ratio_lower", "Lower end of its 95 % interval.", "lower"),
        ("false_hit_ratio_upper", "Upper end of its 95 % interval.", "upper"),
        ("serving", "Whether the error budget lets the route serve.", "is_serving"),
    ):
        yield _gauge(f"semantic_{name}", words, keys, [(k, _of(b, value)) for k, b in named])
    counted = [(k, float(b["audited"])) for k, b in named]
    if rest:
        counted.append((("other", "other"), float(sum(b["audited"] for b in rest))))
    yield _gauge("semantic_audited_hits", "Audited hits that the ratio is of.", keys, counted)
    stops = [(k, float(b["stops"])) for k, b in named]
    yield _counter("semantic_stops", "How often a route fell back to exact only.", keys, stops)


def _of(budget: Mapping[str, Any], name: str) -> float:
    lower, upper = budget["interval"]
    found = {"lower": lower, "upper": upper, "is_serving": budget["state"] == "serving"}
    return float(found.get(name, budget.get(name, 0.0)))


Samples = Sequence[tuple[Sequence[str], float]]


def _gauge(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"frugal_{name}", told, labels=list(labels))
    for values, value in samples:
        family.add_metric(list(values), float(value))
    return family


def _counter(name: str, told: str, labels: Sequence[str], samples: Samples) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"frugal_{name}", told, labels=list(labels))
    for values, value in samples:
        family.add_metric(list(values), float(value))
    return family
