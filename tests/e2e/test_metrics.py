"""With several workers, whichever is scraped tells how each of them stands."""

from __future__ import annotations

import re
import time

import httpx

from tests.support.gateway_app import frugal_serve
from tests.support.policies import one_model


def test_both_workers_are_told_of_by_their_numbers(tmp_path):
    with (
        frugal_serve(one_model("http://127.0.0.1:1/v1"), tmp_path, "--workers", "2") as served,
        httpx.Client(base_url=served.admin_url, trust_env=False) as admin,
    ):
        deadline, workers = time.monotonic() + 60, set()
        while workers != {"0", "1"}:
            assert time.monotonic() < deadline, f"only workers {workers} are told of"
            text = admin.get("/metrics").text
            workers = set(
                re.findall(r'^frugal_process_ledger_healthy\{worker="(\d+)"\} 1.0$', text, re.M)
            )
            time.sleep(0.05)

    assert not list(tmp_path.glob("*-figures/*"))
