"""The reports over HTTP: what they say is what the ledger holds, to the nano-dollar."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from gateway.clock import Clock
from gateway.money.reports import cost_report
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from tests.support.gateway_app import serving
from tests.support.money import attempt, entry
from tests.support.policies import policy, remote

NOW = 1_795_000_000.0
HOUR = 3600
MODELS = {"large": remote("http://127.0.0.1:1/v1", price={"machine_hour_usd": 0})}
TEXT = policy(MODELS, access={"anonymous": "loopback"})


def _write(path, count=60):
    store = SqliteStore(path)
    store.open()
    for number in range(count):
        name = f"r{number:03}"
        line = entry(
            name,
            started_at_us=int((NOW - number * 0.7 * HOUR) * 1e6),
            tenant=("web", "legal")[number % 2],
            key=f"key-{number % 15}",
            cache=("miss", "exact", "semantic")[number % 3],
            state="failed" if number % 10 == 0 else "settled",
            model=("mini", "large")[number % 4 == 0],
            cost_nano_usd=1_000_003 * number,
            latency_us=1_000 * (number + 1),
            ttft_us=500 * (number + 1),
            tags=((), ("batch",), ("batch", '=night "x"'))[number % 3],
            error="upstream_error" if number % 10 == 0 else None,
        )
        calls = [
            attempt(name, 0, model="tiny", outcome="rejected", cost_nano_usd=3),
            attempt(name, 1, cost_nano_usd=1_000_003 * number - 3, began_us=7_000),
            attempt(name, 2, purpose="audit", payer="gateway", cost_nano_usd=11),
        ]
        store.commit([line], calls)
    store.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    _write(folder / "ledger.db")
    Rollup(folder / "ledger.db", at_once=25).step()
    return folder


@pytest.fixture
async def gateway(folder):
    async with serving(TEXT, folder, clock=Clock(wall=lambda: NOW + 1)) as running:
        yield running


async def _get(gateway, path, **query):
    answer = await gateway.admin.get(f"/admin/reports/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("since", ["24h", "7d", "90m"])
@pytest.mark.parametrize("by", ["model", "route", "tenant", "key", "tag"])
async def test_spending_is_what_frugal_costs_says(gateway, by, since):
    told = await _get(gateway, "spend", by=by, since=since)
    known = cost_report(
        gateway.books.url, by=by, since=since, now=datetime.fromtimestamp(NOW + 1, UTC)
    )

    assert {g["name"]: g["spend_nano_usd"] for g in told["groups"]} == {
        group.name: group.cost_nano_usd for group in known.groups
    }
    assert told["total"]["spend_nano_usd"] == known.total.cost_nano_usd
    assert sum(line["spend_nano_usd"] for line in told["own"]) == sum(
        line.cost_nano_usd for line in known.background
    )
    if by != "tag":
        assert sum(p["spend_nano_usd"] for p in told["series"]) == known.total.cost_nano_usd


async def test_the_overview_adds_up_and_compares_with_the_time_before(gateway):
    told = await _get(gateway, "overview", since="12h", compare=True)
    both = await _get(gateway, "overview", since="24h")

    assert told["now"]["requests"] + told["before"]["requests"] == both["now"]["requests"] == 35
    assert sum(p["requests"] for p in told["series"]) == told["now"]["requests"]
    assert sum(p["spend_nano_usd"] for p in both["series"]) == both["now"]["spend_nano_usd"]
    assert both["now"]["hits_exact"] == 12
    assert both["now"]["error_rate"] == 4 / 35
    assert len(told["series"]) == 13


async def test_quantiles_are_those_of_settled_requests(gateway):
    told = (await _get(gateway, "overview", since="7d"))["now"]
    settled = sorted(n + 1 for n in range(60) if n % 10)

    assert told["latency"]["p50_ms"] == pytest.approx(settled[26], rel=0.035)
    assert told["latency"]["p99_ms"] == pytest.approx(settled[-1], rel=0.035)
    assert told["ttft"]["p95_ms"] == pytest.approx(settled[51] / 2, rel=0.035)


async def test_groups_beyond_the_first_dozen_share_a_line_of_the_series(gateway):
    told = await _get(gateway, "spend", by="key", since="7d")

    assert told["others"] == 3
    assert len({point["name"] for point in told["series"]}) == 13


async def test_what_is_shown_can_be_had_as_a_file_without_formulas(gateway):
    answer = await gateway.admin.get("/admin/reports/spend?by=tag&since=7d&format=csv")
    rows = list(csv.reader(io.StringIO(answer.text)))

    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    assert {row[0] for row in rows[1:5]} == {"", "batch", '\'=night "x"', "total"}


async def test_requests_come_page_by_page_and_each_once(gateway):
    seen, cursor = [], {}
    while True:
        page = await _get(gateway, "requests", since="7d", limit=25, **cursor)
        seen += [row["request_id"] for row in page["data"]]
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}

    assert seen == [f"r{number:03}" for number in range(60)]


@pytest.mark.parametrize(
    ("asked", "is_meant"),
    [
        ({"key": "key-3"}, lambda n: n % 15 == 3),
        ({"tenant": "legal", "cache": "exact"}, lambda n: n % 2 == 1 and n % 3 == 1),
        ({"tag": '=night "x"'}, lambda n: n % 3 == 2),
        ({"tag": "night"}, lambda n: False),
        ({"state": "failed"}, lambda n: n % 10 == 0),
        ({"q": "R007"}, lambda n: n == 7),
        ({"q": "upstream_e"}, lambda n: n % 10 == 0),
        ({"q": "100%_"}, lambda n: False),
        ({"model": "large", "route": "auto"}, lambda n: n % 4 == 0),
    ],
)
async def test_requests_can_be_filtered_and_searched(gateway, asked, is_meant):
    page = await _get(gateway, "requests", since="7d", limit=100, **asked)

    assert [row["request_id"] for row in page["data"]] == [
        f"r{number:03}" for number in range(60) if is_meant(number)
    ]
    assert page["next"] is None


@pytest.mark.parametrize(
    "query",
    ["overview?since=soon", "overview?since=1h&until=2h", "overview?since=9999d&step=hour",
     "spend?by=colour", "requests?cursor=x", "requests?cursor=W10", "requests?limit=0"],
)  # fmt: skip
async def test_what_cannot_be_asked_is_a_400(gateway, query):
    answer = await gateway.admin.get(f"/admin/reports/{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_request_is_opened_as_the_way_it_went(gateway):
    told = await _get(gateway, "requests/r004")
    first, second, audit = told["attempts"]

    assert told["request"]["request_id"] == "r004"
    assert (first["outcome"], second["outcome"]) == ("rejected", "accepted")
    assert (first["is_placed"], first["started_ms"]) == (False, 0.0)
    assert (second["is_placed"], second["started_ms"]) == (True, 7.0)
    assert audit["payer"] == "gateway"
    assert told["headers"]["x-frugal-path"] == told["request"]["path"]
    assert "behind the client's back" in told["explanation"][3]
    assert told["texts"] == []


async def test_a_request_that_is_not_there_is_a_404(gateway):
    assert (await gateway.admin.get("/admin/reports/requests/none")).status_code == 404


async def test_models_are_told_with_their_last_calls(gateway):
    told = await _get(gateway, "providers", since="7d")
    (large,) = told["providers"]

    assert (large["model"], large["calls"], large["breaker"]) == ("large", 0, "none")
    assert told["workers"] == 1
    assert told["calls_since"] is not None


async def test_budgets_are_limited_by_who_asks(gateway):
    found = [
        await gateway.admin.get("/admin/reports/budgets", params={"limit": limit})
        for limit in (0, 1, 1000, 1001)
    ]

    assert [answer.status_code for answer in found] == [400, 200, 200, 400]


@pytest.mark.parametrize("path", ["overview?since=30d", "spend?by=key&since=30d"])
async def test_reports_are_packed_only_for_who_takes_them_so(gateway, path):
    packed, plain = [
        await gateway.admin.get(f"/admin/reports/{path}", headers={"accept-encoding": taken})
        for taken in ("gzip", "identity")
    ]

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert "accept-encoding" in packed.headers["vary"].lower()
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert packed.json().keys() == plain.json().keys()


async def test_nothing_but_reports_is_packed(gateway):
    headers = {"accept-encoding": "gzip"}
    for path in ("/metrics", "/openapi.json"):
        answer = await gateway.admin.get(path, headers=headers)
        assert len(answer.content) > 2_000, path
        assert "content-encoding" not in answer.headers, path
