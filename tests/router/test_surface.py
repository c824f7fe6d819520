from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.query import Query
from router.state import State
from router.surface import STRUCTURE, SurfaceError, TextSpace, clipped, structure, structures

TEXTS = ["what is the capital of france", "what is the capital of spain", "add two and two"]


def named(query):
    return dict(zip(STRUCTURE, structure(query).tolist(), strict=True))


def test_options_of_a_choice_are_described():
    found = named(Query("Which is NOT red?\nA. 12 cats\nB. a dog\nC. all of the above"))

    assert found["options"] == 3
    assert found["option_numbers"] == pytest.approx(1 / 3)
    assert found["negation"] == found["all_or_none"] == found["question_mark"] == 1
    assert found["stem_chars"] < found["log_chars"]


def test_request_is_described_beside_the_text():
    query = Query(
        "hi",
        messages=[{"role": "system", "content": "x" * 100}, {"role": "user", "content": "hi"}],
        max_tokens=50,
        has_tools=True,
        has_images=True,
        json_schema=True,
    )
    found = named(query)

    assert (found["tools"], found["images"], found["schema"]) == (1, 1, 1)
    assert found["log_system"] == pytest.approx(np.log1p(100))


def test_numbers_and_code_are_seen():
    found = named(Query("def f(x):\n    return x == 1,200"))

    assert found["code"] == 1
    assert found["largest_number"] == pytest.approx(np.log1p(1200))


@given(st.text(max_size=300))
def test_any_text_gives_finite_features(text):
    rows = structures([Query(text)])

    assert rows.shape == (1, len(STRUCTURE))
    assert np.isfinite(rows).all()
    assert np.isfinite(TextSpace.fit([text, text]).matrix([text]).data).all()


@pytest.mark.parametrize("text", ["", " \n\t ", "\ud800", "\u0661\u0662\u00b2", "🙂" * 9, "漢字"])
def test_odd_texts_give_finite_features(text):
    assert np.isfinite(structure(Query(text))).all()
    assert np.isfinite(TextSpace.fit(TEXTS).matrix([text]).data).all()


def test_long_text_is_read_at_both_ends():
    text = "start " + "x" * 50_000 + " end"

    assert clipped(text).startswith("start")
    assert clipped(text).endswith("end")
    assert len(clipped(text)) < 9000


def test_similar_texts_have_similar_rows():
    rows = TextSpace.fit(TEXTS).matrix(TEXTS)
    alike = (rows @ rows.T).toarray()

    assert alike[0, 1] > 2 * alike[0, 2]
    assert alike[0, 0] == pytest.approx(2.0, abs=1e-5)


def test_known_share_tells_familiar_from_foreign():
    space = TextSpace.fit(TEXTS)
    known = space.known_share(space.matrix(["what is the capital of", "quelle heure est-il", ""]))

    assert known[0] == 1.0
    assert known[1] < 0.3
    assert known[2] == 0.0


def test_text_space_survives_disk_and_refuses_what_is_foreign():
    space = TextSpace.fit(TEXTS, bits=6)
    again = TextSpace.from_state(space.to_state())

    assert (again.matrix(TEXTS) != space.matrix(TEXTS)).nnz == 0
    for values, weight in (
        ({"bits": 6}, np.full(128, np.nan)),
        ({"bits": 6}, np.ones(64)),
        ({"bits": "6"}, np.ones(128)),
        ({"bits": 60}, np.ones(128)),
    ):
        with pytest.raises(SurfaceError, match="text space: expected"):
            TextSpace.from_state(State(values, {"weight": weight}))
    with pytest.raises(SurfaceError):
        TextSpace.from_state(State())
