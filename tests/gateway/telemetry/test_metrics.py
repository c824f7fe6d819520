"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gateway.access.waiting import WAITS_S
from gateway.money.savings import Measured
from gateway.reporting.budgets import Standing
from gateway.reporting.proof import certificate
from gateway.telemetry.families import FAMILIES
from gateway.telemetry.metrics import MOST_SERIES, Scrape, exposition
from gateway.telemetry.readings import Readings, RouteSums
from gateway.telemetry.slow import Slow
from gateway.telemetry.tally import DURATIONS, Tallied
from local_engine.metrics import render_metrics
from local_engine.types import EngineStats


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
        ("entries", "lookups", "hits", "withheld", "kept", "taught", "doubted", "errors"), 1
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
    report = semantic(budget(), budget("other", "exact only", rate=0.2))
    found = told(Scrape(semantic=report, max_errors={"auto": 0.01}))

    assert found["frugal_semantic_max_error_ratio", "auto"] == 0.01
    assert found["frugal_semantic_false_hit_ratio", "auto", "acme"] == 0.01
    assert found["frugal_semantic_false_hit_ratio_lower", "auto", "acme"] == 0.0
    assert found["frugal_semantic_false_hit_ratio_upper", "auto", "acme"] == 0.05
    assert found["frugal_semantic_serving", "auto", "acme"] == 1
    assert found["frugal_semantic_serving", "auto", "other"] == 0
    assert found["frugal_semantic_stops_total", "auto", "acme"] == 2
    assert found["frugal_semantic_refusals_total", "numbers"] == 3


def test_however_many_tenants_there_are_the_series_stay_few_and_stopped_ones_are_told():
    many = [budget(f"tenant-{n}", audited=n + 1) for n in range(10_000)]
    report = semantic(*many, budget("stopped", "exact only", audited=1))
    found = told(Scrape(semantic=report))

    series = [key for key in found if key[0] == "frugal_semantic_false_hit_ratio"]
    assert len(series) == MOST_SERIES
    assert found["frugal_semantic_serving", "auto", "stopped"] == 0
    audited = sum(value for key, value in found.items() if key[0].endswith("audited_hits"))
    assert audited == sum(each["audited"] for each in many) + 1


def test_sums_of_the_ledger_are_counters_in_dollars():
    sums = RouteSums("auto", 2_000_000_000, 1_000_000_000, 500_000_000, 4, 1, 3)
    measured = Measured("auto", 40, 60, 700_000_000, 600_000_000, 800_000_000)
    found = told(Scrape(ledger=Readings([sums], [("audit", 3_000_000)], [measured])))

    assert found["frugal_cost_usd_total", "auto"] == 2
    assert found["frugal_saved_usd_total", "auto"] == 1
    assert found["frugal_cache_saved_usd_total", "auto"] == 0.5
    assert found["frugal_measured_saved_usd", "auto"] == 0.7
    assert found["frugal_measured_saved_usd_lower", "auto"] == 0.6
    assert found["frugal_measured_saved_usd_upper", "auto"] == 0.8
    assert found["frugal_cache_hits_total", "exact", "auto"] == 4
    assert found["frugal_cache_hits_total", "semantic", "auto"] == 1
    assert found["frugal_escalations_total", "auto"] == 3
    assert found["frugal_background_cost_usd_total", "audit"] == 0.003
    assert found["frugal_ledger_readable",] == 1


def test_a_saving_that_is_not_known_yet_is_not_told():
    found = told(Scrape(ledger=Readings([], [], [Measured("auto", 1, 1, None, None, None)])))

    assert not [key for key in found if key[0].startswith("frugal_measured")]


def test_durations_are_histograms_whose_buckets_add_up():
    tallied = Tallied()
    tallied.durations.add(("auto", "miss"), DURATIONS.index(0.5), 3, 1.2)
    tallied.durations.add(("auto", "miss"), len(DURATIONS), 1, 300.0)
    found = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(exposition(Scrape(tallied)).decode())
        for sample in family.samples
    }

    name = "frugal_request_duration_seconds"
    assert found[f"{name}_bucket", "0.25"] == 0
    assert found[f"{name}_bucket", "0.5"] == found[f"{name}_bucket", "120.0"] == 3
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count", None] == 4
    assert found[f"{name}_sum", None] == 301.2


def test_of_ten_thousand_budgets_the_fullest_are_told_and_how_many_are_not():
    def standing(number):
        return Standing("key", f"k{number}", "day", "warn", 10**9, 10**8, None)

    found = told(Scrape(slow=Slow([standing(n) for n in range(10_000)], {"auto": proof("lost")})))

    assert len([key for key in found if key[0] == "frugal_budget_spent_usd"]) == MOST_SERIES
    assert found["frugal_budget_spent_usd", "warn", "k0", "day", "key"] == 0.1
    assert found["frugal_budgets_untold",] == 10_000 - MOST_SERIES
    assert not [key for key in found if key[0] == "frugal_budget_reserved_usd"]
    assert found["frugal_certificate", "auto", "lost"] == 1
    assert ("frugal_certified_loss_bound", "auto") not in found


def proof(state):
    """Return a certificate in this state, whose bound is 0.03."""
    return certificate(None, (), None, "").model_copy(update={"state": state, "bound": 0.03})


def test_only_a_certificate_that_holds_bounds_the_loss():
    found = told(Scrape(slow=Slow((), {"auto": proof("certified"), "near": proof("weaker")})))

    assert found["frugal_certified_loss_bound", "auto"] == 0.03
    assert ("frugal_certified_loss_bound", "near") not in found
    assert found["frugal_certificate", "near", "weaker"] == 1


def test_every_worker_tells_how_it_stands():
    waits = [0.0] * len(WAITS_S) + [1.0, 90.0]
    figures = {
        "process_queue_waiting": [((), 3)],
        "process_queue_wait_seconds": [(("refused",), waits)],
    }
    found = told(Scrape(workers={"0": figures, "1": {"process_queue_waiting": [((), 4.0)]}}))

    assert found["frugal_process_queue_waiting", "0"] == 3
    assert found["frugal_process_queue_waiting", "1"] == 4
    assert found["frugal_process_queue_wait_seconds_count", "refused", "0"] == 1
    assert found["frugal_process_queue_wait_seconds_sum", "refused", "0"] == 90


def test_engines_are_told_as_they_tell_themselves_with_their_model():
    stats = render_metrics(EngineStats(running=2, pages=64, pages_used=16))
    found = told(Scrape(engines={"tiny": stats, "small": render_metrics(None)}))

    assert found["frugal_engine_ready", "tiny"] == 1
    assert found["frugal_engine_ready", "small"] == 0
    assert found["frugal_engine_requests_running", "tiny"] == 2
    assert found["frugal_engine_kv_pages_used", "tiny"] == 16
    assert found["frugal_engine_steps_total", "tiny"] == 0


def test_a_ledger_that_cannot_be_read_is_told_and_costs_nothing_else():
    found = told(Scrape(semantic=semantic(budget()), is_ready=False))

    assert found["frugal_ledger_readable",] == 0
    assert found["frugal_ready",] == 0
    assert found["frugal_semantic_cache_entries",] == 1


def test_names_follow_the_conventions_and_none_is_there_twice():
    names = [family.name for family in FAMILIES]

    assert len(names) == len(set(names))
    for family in FAMILIES:
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_us"))
        assert "le" not in family.labels
        assert family.kind != "histogram" or family.name.endswith("_seconds")
        assert family.told.endswith(".")
