from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from gateway.money.errors import InvoiceError
from gateway.money.invoices import InvoiceLine, read_invoice

NOON = 1_793_534_400  # 2026-11-01 12:00 UTC
DAY = date(2026, 11, 1)


def _read(tmp_path, text, name="invoice"):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return read_invoice(path)


def _bucket(results, **when):
    return {"object": "page", "data": [{"object": "bucket", **when, "results": results}]}


def test_openais_usage_counts_cached_tokens_within_its_input(tmp_path):
    result = {
        "object": "organization.usage.completions.result",
        "model": "gpt-5-mini-2025-08-07",
        "input_tokens": 1000,
        "input_cached_tokens": 400,
        "output_tokens": 50,
        "num_model_requests": 3,
    }
    (line,) = _read(tmp_path, _bucket([result, result], start_time=NOON, end_time=NOON + 86400))

    tokens = {"input": 1200, "cached_input": 800, "output": 100}
    assert line == InvoiceLine(DAY, "gpt-5-mini-2025-08-07", tokens, 6)


def test_openais_costs_are_dollars_by_line_item(tmp_path):
    items = [
        {"line_item": f"gpt-5-mini, {what}", "amount": {"value": value, "currency": "usd"}}
        for what, value in (("input", 0.25), ("output", 1.5))
    ]
    (line,) = _read(tmp_path, _bucket(items, start_time=NOON))

    assert line == InvoiceLine(DAY, "gpt-5-mini", {}, None, Decimal("1.75"))


def test_anthropics_usage_has_disjoint_buckets_and_its_costs_are_cents(tmp_path):
    usage = {
        "model": "claude-opus-5",
        "uncached_input_tokens": 100,
        "cache_read_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
        "output_tokens": 9,
    }
    cost = {"model": "claude-opus-5", "amount": "123.45", "currency": "USD"}
    (line,) = _read(tmp_path, _bucket([usage, cost], starting_at="2026-11-01T00:00:00Z"))

    assert line.tokens == {
        "input": 100, "cached_input": 20, "cache_write_5m": 3, "cache_write_1h": 4, "output": 9,
    }  # fmt: skip
    assert line.usd == Decimal("1.2345")


def test_service_tiers_are_told_apart_where_the_provider_does(tmp_path):
    usage = {"model": "claude-opus-5", "output_tokens": 9}
    tiers = [usage | {"service_tier": tier} for tier in ("standard", "batch", "priority", "batch")]
    batches = [{"model": "gpt-5", "output_tokens": 1, "batch": told} for told in (True, False)]
    lines = _read(tmp_path, _bucket(tiers, starting_at="2026-11-01T00:00:00Z"))
    openais = _read(tmp_path, _bucket([*batches, batches[0] | {"batch": None}], start_time=NOON))
    console = (
        "usage_date_utc,model_version,usage_type,usage_output_tokens\n2026-11-01,m,message,3\n"
    )

    assert [(line.tier, line.tokens["output"]) for line in lines] == [
        ("", 9), ("batch", 18), ("priority", 9),
    ]  # fmt: skip
    assert {line.tier for line in openais} == {"batch", "", None}
    assert _read(tmp_path, console)[0].tier is None


def test_cache_writes_told_as_a_sum_and_in_parts_count_once(tmp_path):
    usage = {
        "date": "2026-11-01",
        "model": "claude-opus-5",
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
    }
    (line,) = _read(tmp_path, [usage])

    assert line.tokens == {"cache_write_5m": 3, "cache_write_1h": 4}


def test_a_plain_csv_needs_a_day_a_model_and_whatever_it_has(tmp_path):
    text = "Date,Model,Input_Tokens,USD\n2026-11-02,b,1,$2.50\n2026-11-01,a,1000,\n"
    lines = _read(tmp_path, text)

    assert lines == [
        InvoiceLine(DAY, "a", {"input": 1000}),
        InvoiceLine(date(2026, 11, 2), "b", {"input": 1}, None, Decimal("2.50")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line tells"),
        ("a,b\n1,2\n", "no line tells"),
        ("model,usd\nm,1\n", "expected a day in one of"),
        ("date,model,usd\nyesterday,m,1\n", "row 1: date: expected a day"),
        ("date,model,usd\n2026-11-01,m,many\n", "row 1: usd: expected a number"),
        ("date,model,input_tokens\n2026-11-01,m,1.5\n", "expected a whole number"),
        ("date,model,input_tokens\n2026-11-01,m,-1\n", "expected a whole number"),
        ("{", "expected JSON"),
        ('{"lines": 5}', "expected a list"),
        ('{"data": [], "has_more": true}', "one page of several"),
        (_bucket([{"model": "m", "input_tokens": 1, "input_cached_tokens": 2}], start_time=NOON),
         "more cached"),
        (_bucket([{"model": "m", "amount": {"value": 1, "currency": "eur"}}], start_time=NOON),
         "expected amounts in USD"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told(tmp_path, text, message):
    with pytest.raises(InvoiceError, match=message):
        _read(tmp_path, text)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    (tmp_path / "scan.pdf").write_bytes(b"%PDF\xff\xfe")
    with pytest.raises(InvoiceError, match="UTF-8"):
        read_invoice(tmp_path / "scan.pdf")
    with pytest.raises(InvoiceError, match="cannot be read"):
        read_invoice(tmp_path / "none.csv")
