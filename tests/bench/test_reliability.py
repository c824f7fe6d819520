from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from bench.router.reliability import by_chance, dots
from bench.router.svg import Panel, reliability


def test_dots_hold_equal_parts_of_the_replies_in_order():
    foretold = np.array([0.9, 0.1, 0.8, 0.2])
    found = dots(foretold, np.array([1.0, 0.0, 1.0, 1.0]), bins=2)

    assert [(round(dot.foretold, 2), dot.seen) for dot in found] == [(0.15, 0.5), (0.85, 1.0)]
    assert all(dot.low <= dot.seen <= dot.high for dot in found)


def test_who_is_always_right_shows_no_error_by_chance_and_who_guesses_shows_some():
    assert by_chance(np.array([0.0, 1.0] * 50), draws=20) == 0.0
    assert 0.02 < by_chance(np.full(100, 0.5), draws=200) < 0.2


def test_a_diagram_is_drawn_for_each_model():
    panels = [Panel(f"model <{n}>", dots(np.array([0.2, 0.7]), np.ones(2)), "") for n in range(4)]
    drawn = ElementTree.fromstring(reliability(panels))

    assert sum(each.tag.endswith("circle") for each in drawn.iter()) == 8
    assert "model <3>" in [each.text for each in drawn.iter()]
