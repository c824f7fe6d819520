from __future__ import annotations

from gateway.access.refused import Refusals


def test_refusals_are_counted_by_reason_and_key():
    refusals = Refusals()
    for code, key in (("a", "ci"), ("b", "ci"), ("a", "ci"), ("a", "dev")):
        refusals.count(code, "red", key)

    assert refusals.report()[0] == {"code": "a", "tenant": "red", "key": "ci", "requests": 2}
    assert sum(row["requests"] for row in refusals.report()) == 4


def test_however_many_keys_are_refused_the_count_stays_small():
    refusals = Refusals()
    for number in range(3_000):
        refusals.count("a", "red", f"key{number}")

    assert len(refusals.report()) <= 1_001
    assert sum(row["requests"] for row in refusals.report()) == 3_000
