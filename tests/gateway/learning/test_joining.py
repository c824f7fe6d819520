from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.learning.joining import doubts_of
from router.join import Newcomer

FINE = Newcomer("mini", 120, 120, mean_score=0.8, foretold=0.8, judged=0.83, auroc=0.9, met=0.1)


def test_of_a_newcomer_that_fits_there_is_nothing_to_say():
    assert list(doubts_of(FINE)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"met": 0.9}, "trained on 90% of the probes' prompts"),
        ({"judged": None}, "drafts of mini are not judged"),
        ({"judged": 0.5}, "right in 50%, and are in 80%"),
    ],
    ids=str,
)
def test_what_an_operator_should_know_of_a_newcomer_is_said(changed, said):
    (doubt,) = doubts_of(replace(FINE, **changed))

    assert said in doubt
