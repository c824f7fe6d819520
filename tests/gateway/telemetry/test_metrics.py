"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import MOST_SERIES, Scrape, exposition
from gateway.telemetry.readings import Readings, RouteSums


def budget(tenant="acme", state="serving", audited=100, rate=0.01, interval=(0.0, 0.05)):
    return {
        "tenant": tenant,
        "route": "auto",
        "state": state,
        "audited": audited,
        "false_hit_rate": rate,
        "interval": list(interval),
        "stops": 2,
    }


def semantic(*budgets):
    counts = dict.fromkeys(
        ("entries", "lookups", "hits", "withheld", "kept", "taught", "errors"), 1
    )
    return {**counts, "refused": {"numbers": 3}, "budgets": list(budgets)}


def told(scrape):
    """Return every sample by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(scrape).decode())
        for sample in family.samples
    }


def test_the_false_hit_rate_is_told_with_its_interval_by_route_and_tenant():
    found = told(Scrape(None, semantic(budget(), budget("other", "exact only", rate=0.2))))

    assert found["frugal_semantic_false_hit_ratio", "auto", "acme"] == 0.01
    assert found["frugal_semantic_false_hit_ratio_lower", "auto", "acme"] == 0.0
    assert found["frugal_semantic_false_hit_ratio_upper", "auto", "acme"] == 0.05
    assert found["frugal_semantic_serving", "auto", "acme"] == 1
    assert found["frugal_semantic_serving", "auto", "other"] == 0
    assert found["frugal_semantic_stops_total", "auto", "acme"] == 2
    assert found["frugal_process_semantic_refusals_total", "numbers"] == 3


def test_however_many_tenants_there_are_the_series_stay_few_and_stopped_ones_are_told():
    many = [budget(f"tenant-{n}", audited=n + 1) for n in range(1000)]
    found = told(Scrape(None, semantic(*many, budget("stopped", "exact only", audited=1))))

    series = [key for key in found if key[0] == "frugal_semantic_false_hit_ratio"]
    assert len(series) == MOST_SERIES
    assert found["frugal_semantic_serving", "auto", "stopped"] == 0
    audited = sum(value for key, value in found.items() if key[0].endswith("audited_hits"))
    assert audited == sum(each["audited"] for each in many) + 1


def test_sums_of_the_ledger_are_counters_in_dollars():
    sums = RouteSums("auto", 10, 2_000_000_000, 1_000_000_000, 500_000_000, 4, 1)
    readings = Readings(
        [sums], [("audit", 3_000_000)], [("auto", "semantic", "settled", 2)], [("m", "ok", 7)]
    )
    found = told(Scrape(readings, exact={"hits": 5}))

    assert found["frugal_requests_total", "auto"] == 10
    assert found["frugal_cost_usd_total", "auto"] == 2
    assert found["frugal_cache_saved_usd_total", "auto"] == 0.5
    assert found["frugal_background_cost_usd_total", "audit"] == 0.003
    assert found["frugal_recent_requests", "semantic", "auto", "settled"] == 2
    assert found["frugal_recent_calls", "m", "ok"] == 7
    assert found["frugal_process_exact_cache_total", "hits"] == 5
    assert found["frugal_ledger_readable",] == 1


def test_a_ledger_that_cannot_be_read_is_told_and_costs_nothing_else():
    found = told(Scrape(None, semantic(budget()), is_ready=False))

    assert found["frugal_ledger_readable",] == 0
    assert found["frugal_ready",] == 0
    assert found["frugal_semantic_cache_entries",] == 1
