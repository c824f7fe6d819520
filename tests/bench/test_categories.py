"""What an effect of a question's category is made of, before it is measured."""

from __future__ import annotations

import numpy as np

from bench.cache_categories import ByCategory, clusters
from cache.semantic.types import Candidate

ASKED = "how can i reset my password"
NEAR = [Candidate("how do i reset the password", 9, 0.9, "1")]


def test_clusters_are_the_same_for_the_same_vectors_and_find_what_lies_apart():
    apart = np.eye(8, dtype=np.float32)[[0, 0, 0, 3, 3, 3]]
    apart += np.float32(0.01)

    centres = clusters(apart, 2)
    assert np.array_equal(centres, clusters(apart, 2))
    assert sorted(np.abs(centres).argmax(1).tolist()) in ([0, 3], [0, 0], [3, 3])
    assert np.allclose(np.linalg.norm(centres, axis=1), 1.0)


def test_what_is_found_wrong_makes_its_category_more_careful_than_another():
    shares = {ASKED: np.array([1.0, 0.0]), f"{ASKED}!": np.array([0.0, 1.0])}
    decider = ByCategory(shares, 2, 0.3)
    for number in range(5):
        decider.decide(ASKED, [Candidate(NEAR[0].question, 9, 0.9, str(number))], 0.05)
        decider.observe(str(number), False)

    here, there = (decider.decide(asked, NEAR, 0.05).lower for asked in shares)
    assert here < there
