from __future__ import annotations

from bench.properties import Tried, tried

SAID = """
tests/a/test_b.py::test_one[x: y]:

  - during reuse phase (0.10 seconds):
    - 3 passing, 0 failing, and 0 invalid test cases
  - during generate phase (18.97 seconds):
    - Typical runtimes: ~ 0-36 ms, of which ~ 0-32 ms in data generation
    - 1000 passing, 1 failing, and 291 invalid test cases

tests/a/test_b.py::Machine::runTest:

  - during generate phase (2.95 seconds):
    - 300 passing examples, 0 failing examples, 26 invalid examples
"""


def test_cases_of_all_phases_are_added_up_test_by_test() -> None:
    assert tried(SAID.splitlines()) == [
        Tried("tests/a/test_b.py", "test_one[x: y]", 1003, 1),
        Tried("tests/a/test_b.py", "Machine::runTest", 300, 0),
    ]
