"""`/metrics`: what is true at the moment of the scrape, whichever worker is asked.

Nothing is counted for it on the way of a request. What requests came to is read from the
ledger, error budgets from the semantic cache's file; processes say how they stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.telemetry.families import FAMILIES, Family
from gateway.telemetry.readings import Learnt, Readings
from gateway.telemetry.series import Histogram, Labels, Sums

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from gateway.money.savings import Measured
    from gateway.telemetry.process import Figures
    from gateway.telemetry.slow import Slow
    from gateway.telemetry.tally import Tallied

MOST_SERIES = 200
"""How many pairs of route and tenant, and how many budgets, are told apart."""
_NANO = 1e9
_EVENTS = ("lookups", "hits", "withheld", "kept", "taught", "doubted", "errors")


@dataclass(frozen=True, slots=True)
class Classes:
    """A histogram's line: how many are at most each bound, and in all; and their sum."""

    bounds: Sequence[float]
    counts: Sequence[int]
    seconds: float


Value = float | Classes
Samples = dict[str, list[tuple[Labels, Value]]]
"""Lines by the name of their family."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one scrape found. `semantic` is the report of the semantic cache, if there is one.

    `refused` counts by reason, over all workers. `tallied`, `ledger` and `slow` are None where
    the ledger could not be read. `workers` tells by number how each process stands, `engines` by
    model what its engine says of itself.
    """

    tallied: Tallied | None = None
    ledger: Readings | None = None
    slow: Slow | None = None
    semantic: Mapping[str, Any] | None = None
    max_errors: Mapping[str, float] = field(default_factory=dict)
    is_ready: bool = True
    refused: Mapping[str, int] = field(default_factory=dict)
    workers: Mapping[str, Figures] = field(default_factory=dict)
    engines: Mapping[str, str] = field(default_factory=dict)


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
        """Yield every family, those that have no line too: so what there may be can be seen."""
        samples = samples_of(self.scrape)
        for family in FAMILIES:
            yield _metric(family, samples.pop(family.name, ()))
        assert not samples, f"no families are called {sorted(samples)}"
        yield from _engines(self.scrape.engines)


def samples_of(scrape: Scrape) -> Samples:
    """Return the lines of all families."""
    samples: Samples = defaultdict(list)
    samples["ready"] = [((), scrape.is_ready)]
    samples["ledger_readable"] = [((), scrape.ledger is not None)]
    samples["refusals"] = [((code,), count) for code, count in sorted(scrape.refused.items())]
    if scrape.tallied is not None:
        samples |= _tallied(scrape.tallied)
    if scrape.ledger is not None:
        samples |= _of_ledger(scrape.ledger)
    if scrape.slow is not None:
        samples |= _slow(scrape.slow)
    if scrape.semantic is not None:
        samples |= _semantic(scrape.semantic, scrape.max_errors)
    for worker, figures in scrape.workers.items():
        for name, lines in figures.items():
            samples[name] += [((worker, *labels), _value(value)) for labels, value in lines]
    return samples


def _tallied(found: Tallied) -> Samples:
    return {
        "requests": _counted(found.requests),
        "request_duration_seconds": _classes(found.durations),
        "time_to_first_token_seconds": _classes(found.first),
        "tenant_requests": _counted(found.tenant_requests),
        "tenant_cost_usd": _counted(found.tenant_nano_usd, _NANO),
        "calls": _counted(found.calls),
        "call_cost_usd": _counted(found.calls_nano_usd, _NANO),
        "call_duration_seconds": _classes(found.call_durations),
        "call_time_to_first_token_seconds": _classes(found.call_first),
        "time_per_output_token_seconds": _classes(found.per_token),
        "tokens": _counted(found.tokens),
    }


def _counted(sums: Sums, unit: float = 1.0) -> list[tuple[Labels, Value]]:
    return [(labels, value / unit) for labels, value in sums.values.items()]


def _classes(histogram: Histogram) -> list[tuple[Labels, Value]]:
    seconds = histogram.seconds.values
    return [
        (labels, Classes(histogram.bounds, counts, seconds[labels]))
        for labels, counts in histogram.cumulative().items()
    ]


def _of_ledger(found: Readings) -> Samples:
    hits = [((r.route, "exact"), float(r.hits_exact)) for r in found.routes]
    hits += [((r.route, "semantic"), float(r.hits_semantic)) for r in found.routes]
    return {
        "cost_usd": [((r.route,), r.cost_nano_usd / _NANO) for r in found.routes],
        "saved_usd": [((r.route,), r.saved_nano_usd / _NANO) for r in found.routes],
        "cache_saved_usd": [((r.route,), r.cache_saved_nano_usd / _NANO) for r in found.routes],
        "cache_hits": list(hits),
        "escalations": [((r.route,), float(r.escalations)) for r in found.routes],
        "background_cost_usd": [((why,), cost / _NANO) for why, cost in found.background],
        **_measured(found.measured),
        **_learnt(found.learnt),
    }


def _measured(lines: Iterable[Measured]) -> Samples:
    found: Samples = defaultdict(list)
    for line in lines:
        for name, nano_usd in (
            ("measured_saved_usd", line.saved_nano_usd),
            ("measured_saved_usd_lower", line.low_nano_usd),
            ("measured_saved_usd_upper", line.high_nano_usd),
        ):
            if nano_usd is not None:
                found[name].append(((line.route,), nano_usd / _NANO))
    return found


def _learnt(learnt: Sequence[Learnt]) -> Samples:
    return {
        "learning_stage": [((each.route, each.stage), 1.0) for each in learnt],
        "learning_steps": [
            ((each.route, kind), float(n)) for each in learnt for kind, n in each.steps
        ],
    }


def _slow(found: Slow) -> Samples:
    samples: Samples = defaultdict(list)
    for each in found.budgets[:MOST_SERIES]:
        labels = (each.scope, each.name, each.per, each.at_limit)
        samples["budget_limit_usd"].append((labels, each.limit_nano_usd / _NANO))
        samples["budget_spent_usd"].append((labels, each.spent_nano_usd / _NANO))
        if each.reserved_nano_usd is not None:
            samples["budget_reserved_usd"].append((labels, each.reserved_nano_usd / _NANO))
    samples["budgets_untold"] = [((), float(max(0, len(found.budgets) - MOST_SERIES)))]
    proofs = found.certificates
    samples["certificate"] = [((name, each.state), 1.0) for name, each in proofs.items()]
    samples["certified_loss_bound"] = [
        ((name,), each.bound)
        for name, each in proofs.items()
        if each.state == "certified" and each.bound is not None
    ]
    return samples


def _semantic(report: Mapping[str, Any], max_errors: Mapping[str, float]) -> Samples:
    return {
        "semantic_cache_entries": [((), float(report["entries"]))],
        "semantic_cache_events": [((name,), float(report[name])) for name in _EVENTS],
        "semantic_refusals": [((axis,), float(n)) for axis, n in report["refused"].items()],
        "semantic_max_error_ratio": [((route,), value) for route, value in max_errors.items()],
        **_error_budgets(report["budgets"]),
    }


def _error_budgets(budgets: Sequence[Mapping[str, Any]]) -> Samples:
    """Tell what audits came to; routes that are stopped come first, then the most audited."""
    order = sorted(budgets, key=lambda b: (b["state"] == "serving", -b["audited"]))
    rest = order[MOST_SERIES:]
    samples: Samples = defaultdict(list)
    for budget in order[:MOST_SERIES]:
        labels = (budget["route"], budget["tenant"])
        lower, upper = budget["interval"]
        for name, value in (
            ("false_hit_ratio", budget["false_hit_rate"]),
            ("false_hit_ratio_lower", lower),
            ("false_hit_ratio_upper", upper),
            ("serving", budget["state"] == "serving"),
            ("audited_hits", budget["audited"]),
            ("stops", budget["stops"]),
        ):
            samples[f"semantic_{name}"].append((labels, float(value)))
    if rest:
        audited = float(sum(budget["audited"] for budget in rest))
        samples["semantic_audited_hits"].append((("other", "other"), audited))
    return samples


def _value(value: float | Sequence[float]) -> Value:
    """Return a figure of a process: its waits are counts at most each bound, and their sum."""
    from gateway.access.waiting import WAITS_S

    if isinstance(value, int | float):
        return float(value)
    *counts, seconds = value
    return Classes(WAITS_S, [int(count) for count in counts], seconds)


def _metric(family: Family, lines: Iterable[tuple[Labels, Value]]) -> Metric:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    kinds = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    metric: Any = kinds[family.kind](
        f"frugal_{family.name}", family.told, labels=list(family.labels)
    )
    for labels, value in lines:
        if isinstance(value, Classes):
            names = [*(str(float(bound)) for bound in value.bounds), "+Inf"]
            counts = [(name, float(n)) for name, n in zip(names, value.counts, strict=True)]
            metric.add_metric(list(labels), counts, value.seconds)
        else:
            metric.add_metric(list(labels), float(value))
    return metric  # type: ignore[no-any-return]


def _engines(told: Mapping[str, str]) -> Iterator[Metric]:
    """Yield what the engines of this machine say, with the model that each one runs."""
    from prometheus_client.core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    merged: dict[str, Metric] = {}
    for model, text in told.items():
        for family in text_string_to_metric_families(text):
            own = merged.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                own.add_sample(sample.name, {**sample.labels, "model": model}, sample.value)
    yield from merged.values()
