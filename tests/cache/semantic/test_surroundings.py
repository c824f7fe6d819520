"""How answers lie around a question: centres, rivals, and who holds an answer together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.semantic.surroundings import NO_RIVAL, Around, surroundings


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lying(asked, rows, keys):
    asked, vectors = unit([asked])[0], unit(rows)
    return asked, vectors, surroundings((vectors @ asked).tolist(), vectors, keys)


def test_one_neighbour_is_its_own_centre():
    _, vectors, [found] = lying([1, 0], [[1, 1]], ["a"])

    assert found == Around(pytest.approx(vectors[0][0]), NO_RIVAL)


def test_nobody_has_no_surroundings():
    assert surroundings([], np.empty((0, 4), np.float32), []) == []


def test_a_question_amid_an_answers_questions_is_nearer_to_their_centre_than_to_any():
    _, vectors, found = lying([1, 0, 0], [[1, 0.5, 0], [1, -0.5, 0], [0.9, 0, 1]], ["a", "a", "b"])

    assert found[0].centre == found[1].centre > vectors[:, 0].max()
    assert [each.kin for each in found] == [2, 2, 1]
    assert found[2].rival == found[0].centre
    assert found[0].rival == pytest.approx(vectors[2][0])


def test_answers_that_are_not_told_apart_are_each_others_rivals():
    _, _, found = lying([1, 0], [[1, 0.1], [1, 0.2]], ["", ""])

    assert [each.kin for each in found] == [1, 1]
    assert found[1].rival == found[0].centre


@settings(max_examples=100)
@given(
    st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=8),
    st.integers(0, 1000),
)
def test_all_is_as_it_is_defined(keys, seed):
    drawn = np.random.default_rng(seed)
    asked, vectors, found = lying(drawn.normal(size=6), drawn.normal(size=(len(keys), 6)), keys)
    owners = [key or f"#{place}" for place, key in enumerate(keys)]
    centres = {
        owner: float(asked @ unit([vectors[[o == owner for o in owners]].sum(0)])[0])
        for owner in owners
    }

    for place, (owner, around) in enumerate(zip(owners, found, strict=True)):
        kin = [o for o, other in enumerate(owners) if other == owner and o != place]
        rivals = [centre for other, centre in centres.items() if other != owner]
        assert around.centre == pytest.approx(centres[owner], abs=1e-6)
        assert around.rival == pytest.approx(max(rivals, default=NO_RIVAL), abs=1e-6)
        assert around.kin == len(kin) + 1
        if kin:
            assert around.together == pytest.approx(max(vectors[place] @ vectors[kin].T))
