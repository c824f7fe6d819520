"""Beam search as clients ask for it: vLLM's words, and no others."""

from __future__ import annotations

from collections.abc import Collection

from local_engine.beams import BeamRules, EarlyStopping
from local_engine.body import Body
from local_engine.errors import InvalidRequest, Unsupported

_MOST_CANDIDATES = 128
_MEANINGLESS = (
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stop",
    "tools",
    "response_format",
    "guided_json",
    "guided_regex",
    "guided_grammar",
    "guided_choice",
)
"""What would change the next token, where a search takes them as the model has them."""


def beam_width(fields: Body, best_of: int) -> int | None:
    """Return how many beams to search with, None where no search is asked for.

    Raises `InvalidRequest` and `Unsupported` for what means nothing in a search.
    """
    if not fields.flag("use_beam_search"):
        for key in ("length_penalty", "early_stopping"):
            if fields.values.get(key) is not None:
                raise InvalidRequest(f"{key} needs use_beam_search: true.", key)
        return None
    if fields.flag("stream"):
        raise InvalidRequest("A beam search cannot be streamed.", "stream")
    if fields.number("temperature", 0.0, 2.0, 0.0):
        raise InvalidRequest("temperature must be 0 with use_beam_search.", "temperature")
    if fields.number("repetition_penalty", 0.01, 10.0, 1.0) != 1.0:
        raise Unsupported("Beam search knows no penalties.", "repetition_penalty")
    for key in _MEANINGLESS:
        if fields.values.get(key):
            raise Unsupported(f"{key} and use_beam_search are not built together.", key)
    return best_of


def beam_rules(fields: Body, width: int, max_tokens: int, end_ids: Collection[int]) -> BeamRules:
    """Return the rules of one prompt's search."""
    rules = BeamRules(
        width,
        max_tokens,
        frozenset() if fields.flag("ignore_eos") else frozenset(end_ids),
        fields.number("length_penalty", -10.0, 10.0, 1.0),
        _early_stopping(fields),
    )
    if rules.candidates > _MOST_CANDIDATES:
        most = _MOST_CANDIDATES * width // rules.candidates
        raise InvalidRequest(f"This model's searches have {most} beams at most.", "best_of")
    return rules


def _early_stopping(fields: Body) -> EarlyStopping:
    found = fields.values.get("early_stopping")
    return "never" if found == "never" else fields.flag("early_stopping")
